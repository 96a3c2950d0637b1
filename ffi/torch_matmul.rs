//! libtorch's matrix products over memory of ours.
//!
//! libtorch hands them to oneDNN or MKL, which reach most of what a processor can do. Its tensors exist for the call
//! only: they are views of slices that are borrowed meanwhile.

use std::ops::Range;

use half::bf16;
use tch::{Device, Kind, TchError, Tensor};

/// A number format that libtorch multiplies.
pub trait Number: Copy + private::Sealed {
    /// Its name in libtorch.
    const KIND: Kind;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
}

impl Number for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

mod private {
    /// What [`Number::KIND`](super::Number::KIND) says of a type must be true of its bytes.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// A matrix in memory, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    /// From the first number to the last: of rows that are not whole, too.
    numbers: &'a [T],
    rows: usize,
    columns: usize,
    /// Numbers from a row to the next.
    stride: usize,
    transposed: bool,
}

impl<'a, T: Number> Matrix<'a, T> {
    /// Sees numbers as rows of so many columns.
    ///
    /// # Panics
    /// If the last row is not whole.
    pub fn new(numbers: &'a [T], columns: usize) -> Self {
        assert!(columns > 0 && numbers.len().is_multiple_of(columns), "whole rows");
        let rows = numbers.len() / columns;
        Self { numbers, rows, columns, stride: columns, transposed: false }
    }

    /// Sees some of the columns only.
    ///
    /// # Panics
    /// If they are none of the matrix's, or rows are seen as columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(
            !self.transposed && range.start < range.end && range.end <= self.columns,
            "columns"
        );
        let numbers = match self.rows {
            0 => &self.numbers[..0],
            rows => &self.numbers[range.start..(rows - 1) * self.stride + range.end],
        };
        Self { numbers, columns: range.len(), ..self }
    }

    /// Returns how many rows are in memory.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Sees rows as columns.
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, as they are seen.
    fn shape(&self) -> (usize, usize) {
        let (rows, columns) = (self.rows, self.columns);
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }

    fn view(&self) -> Result<Tensor, TchError> {
        let (rows, columns) = self.shape();
        let strides = if self.transposed { [1, self.stride] } else { [self.stride, 1] };
        // SAFETY: the slice holds a number of this kind at each place of these sizes and strides, and outlives the
        // tensor, which does not leave this file. Only `out` of the functions below is written to.
        unsafe { view::<T>(self.numbers.as_ptr(), [rows, columns], strides) }
    }
}

/// `out = a b`, row by row.
///
/// # Errors
/// When libtorch has no memory left.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn multiply<T: Number>(a: Matrix<T>, b: Matrix<T>, out: &mut [T]) -> Result<(), TchError> {
    let Some(out) = target(&a, &b, out)? else { return Ok(()) };
    let _ = a.view()?.f_mm_out(&out, &b.view()?)?;
    Ok(())
}

/// `out += a b`, row by row.
///
/// # Errors
/// When libtorch has no memory left.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn multiply_add<T: Number>(a: Matrix<T>, b: Matrix<T>, out: &mut [T]) -> Result<(), TchError> {
    let Some(mut out) = target(&a, &b, out)? else { return Ok(()) };
    let _ = out.f_addmm_(&a.view()?, &b.view()?)?;
    Ok(())
}

/// `out += a b` in some columns of a matrix whose rows have so many numbers.
///
/// # Errors
/// When libtorch has no memory left.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn multiply_add_columns<T: Number>(
    a: Matrix<T>,
    b: Matrix<T>,
    (out, width): (&mut [T], usize),
    columns: Range<usize>,
) -> Result<(), TchError> {
    let ((rows, depth), (other, wide)) = (a.shape(), b.shape());
    assert_eq!(depth, other, "columns of the first, rows of the second");
    assert_eq!(out.len(), rows * width, "rows of the product");
    assert!(columns.len() == wide && columns.end <= width, "columns of the product");
    if rows == 0 || wide == 0 {
        return Ok(());
    }
    let out = &mut out[columns.start..];
    // SAFETY: the slice holds a number of this kind at each place: the last is at (rows - 1) width + wide, and it has
    // rows width - start, which is no less, since start + wide is no more than the width. It is borrowed mutably while
    // the tensor lives, so nobody else reads or writes it.
    let mut out = unsafe { view::<T>(out.as_mut_ptr(), [rows, wide], [width, 1]) }?;
    let _ = out.f_addmm_(&a.view()?, &b.view()?)?;
    Ok(())
}

/// Views what is written to; `None` where there is nothing to write.
fn target<T: Number>(
    a: &Matrix<T>,
    b: &Matrix<T>,
    out: &mut [T],
) -> Result<Option<Tensor>, TchError> {
    let ((rows, depth), (other, columns)) = (a.shape(), b.shape());
    assert_eq!(depth, other, "columns of the first, rows of the second");
    assert_eq!(out.len(), rows * columns, "rows and columns of the product");
    if out.is_empty() {
        return Ok(None);
    }
    // SAFETY: the slice holds a number of this kind at each place; it is borrowed mutably while the tensor lives, so
    // nobody else reads or writes it.
    unsafe { view::<T>(out.as_mut_ptr(), [rows, columns], [columns, 1]) }.map(Some)
}

/// # Safety
/// Numbers of this kind lie at each place of these sizes and strides as long as the tensor is in use.
unsafe fn view<T: Number>(
    start: *const T,
    size: [usize; 2],
    strides: [usize; 2],
) -> Result<Tensor, TchError> {
    let (size, strides) = (size.map(|n| n as i64), strides.map(|n| n as i64));
    // SAFETY: the caller promises what is there.
    unsafe { Tensor::f_from_blob(start.cast(), &size, &strides, T::KIND, Device::Cpu) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_book() {
        let a = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let b = [1.0f32, 0.0, -1.0, 2.0, 1.0, 1.0]; // 2 x 3
        let (a, b) = (Matrix::new(&a, 3), Matrix::new(&b, 3));
        let mut out = [0.0; 4];
        multiply(a, b.t(), &mut out).unwrap();
        assert_eq!(out, [-2.0, 7.0, -2.0, 19.0]);
        multiply_add(a, b.t(), &mut out).unwrap();
        assert_eq!(out, [-4.0, 14.0, -4.0, 38.0]);
        let mut out = [0.0; 9];
        multiply(a.t(), b, &mut out).unwrap();
        assert_eq!(out, [9.0, 4.0, 3.0, 12.0, 5.0, 3.0, 15.0, 6.0, 3.0]);
        let halves = [1.5f32, -2.0].map(bf16::from_f32);
        let mut out = [bf16::ZERO];
        multiply(Matrix::new(&halves, 2), Matrix::new(&halves, 2).t(), &mut out).unwrap();
        assert_eq!(out[0].to_f32(), 6.25);
        multiply(Matrix::new(&halves[..0], 2), Matrix::new(&halves, 2).t(), &mut []).unwrap();
    }

    #[test]
    fn some_columns_of_a_matrix_are_a_matrix() {
        let a = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let right = Matrix::new(&a, 3).columns(1..3);
        let mut out = [0.0; 4];
        multiply(right, right.t(), &mut out).unwrap();
        assert_eq!(out, [13.0, 28.0, 28.0, 61.0]);
        let mut wide = [1.0f32; 8]; // 2 x 4
        multiply_add_columns(right, right.t(), (&mut wide, 4), 1..3).unwrap();
        assert_eq!(wide, [1.0, 14.0, 29.0, 1.0, 1.0, 29.0, 62.0, 1.0]);
        multiply_add_columns(right, right.t(), (&mut wide, 4), 2..4).unwrap();
        assert_eq!(wide, [1.0, 14.0, 42.0, 29.0, 1.0, 29.0, 90.0, 62.0]);
    }
}
