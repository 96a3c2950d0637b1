//! What an adapter adds to a product, and the way back (Hu et al., 2021).

use super::{
    compute::{Crew, Format},
    pass::Pass,
};
use crate::{
    ffi::torch_matmul::{Matrix, multiply, multiply_add, multiply_add_columns},
    trainer::torch::{Result, layout::AdapterPlace},
};

impl<E: Format> Pass<'_, E> {
    /// Adds `scale (x A^T) B^T` to the outputs of each part.
    pub(super) fn adapter(
        &self,
        x: &[E],
        adapter: &AdapterPlace,
        (out, width): (&mut [E], usize),
    ) -> Result<()> {
        let low = self.low(x, adapter)?;
        let low = Matrix::new(&low, adapter.width());
        for (n, part) in adapter.parts.iter().enumerate() {
            let b = Matrix::new(&self.weights[part.b.clone()], adapter.rank);
            let low = low.columns(adapter.columns(n));
            multiply_add_columns(low, b.t(), (&mut *out, width), part.columns.clone())?;
        }
        Ok(())
    }

    /// The way back through [`Pass::adapter`]: adds to the derivative with respect to `x`, and to the gradient of A and B.
    /// `x A^T` is computed again: that is little.
    pub(super) fn adapter_back(
        &self,
        adapter: &AdapterPlace,
        (x, d_out, width): (&[E], &[E], usize),
        d_x: &mut [E],
        (gradient, scratch): (&mut [f32], &mut Vec<E>),
        crew: &mut Crew,
    ) -> Result<()> {
        let low = self.low(x, adapter)?;
        let mut d_low = vec![E::default(); low.len()];
        let low = Matrix::new(&low, adapter.width());
        let d_out = Matrix::new(d_out, width);
        for (n, part) in adapter.parts.iter().enumerate() {
            let d_out = d_out.columns(part.columns.clone());
            let sums = &mut gradient[part.b.clone()];
            E::accumulate(d_out.t(), low.columns(adapter.columns(n)), sums, scratch, crew)?;
            let b = Matrix::new(&self.weights[part.b.clone()], adapter.rank);
            let d_low = (&mut d_low[..], adapter.width());
            multiply_add_columns(d_out, b, d_low, adapter.columns(n))?;
        }
        scale(&mut d_low, adapter.scale);
        let d_low = Matrix::new(&d_low, adapter.width());
        let sums = &mut gradient[adapter.a.clone()];
        E::accumulate(d_low.t(), Matrix::new(x, adapter.inputs), sums, scratch, crew)?;
        let a = Matrix::new(&self.weights[adapter.a.clone()], adapter.inputs);
        Ok(multiply_add(d_low, a, d_x)?)
    }

    /// `scale x A^T`: the ranks of one part beside those of the other.
    fn low(&self, x: &[E], adapter: &AdapterPlace) -> Result<Vec<E>> {
        let x = Matrix::new(x, adapter.inputs);
        let mut low = vec![E::default(); x.rows() * adapter.width()];
        let a = Matrix::new(&self.weights[adapter.a.clone()], adapter.inputs);
        multiply(x, a.t(), &mut low)?;
        scale(&mut low, adapter.scale);
        Ok(low)
    }
}

fn scale<E: Format>(numbers: &mut [E], by: f64) {
    for number in numbers {
        *number = E::of(number.wide() * by as f32);
    }
}
