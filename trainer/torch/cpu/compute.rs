//! Who computes: threads, instruction set, and room that lasts from pass to pass.

use std::{
    cell::Cell,
    sync::{Mutex, MutexGuard, PoisonError},
};

use half::bf16;

use super::{attention::Scratch, pointwise::Accumulate, workspace::Workspace};
use crate::{
    ffi::{
        team::Team,
        torch_matmul::{Matrix, Number, multiply, multiply_add},
    },
    simd::{Element, Kernels, Op},
    trainer::torch::{Error, Result},
};

/// Numbers that one kernel works on: enough to be worth handing out, and so few in tests that small models have many parts.
pub(super) const PART: usize = if cfg!(test) { 1 << 9 } else { 1 << 15 };

/// Threads and what they compute with.
#[derive(Debug)]
pub(in crate::trainer::torch) struct Crew {
    team: Team,
    kernels: Kernels,
    /// One for each thread; never waited for.
    scratch: Vec<Mutex<Scratch>>,
}

impl Crew {
    fn new(threads: usize, kernels: Kernels) -> Result<Self> {
        let team = Team::new(threads).map_err(|error| Error::Threads { threads, error })?;
        let scratch = (0..threads).map(|_| Mutex::default()).collect();
        Ok(Self { team, kernels, scratch })
    }

    /// Runs kernels that do not depend on each other.
    pub(super) fn each<O: Op<Output = ()> + Send>(&mut self, ops: impl Iterator<Item = O>) {
        let kernels = self.kernels;
        let mut ops: Vec<Option<O>> = ops.map(Some).collect();
        self.team.pieces(&mut ops, 1, |_, _, ops| {
            for op in ops.iter_mut().filter_map(Option::take) {
                kernels.run(op);
            }
        });
    }

    /// Runs kernels that need room of their own to work in.
    pub(super) fn each_with<'s, T: Send, O: Op>(
        &'s mut self,
        tasks: impl Iterator<Item = T>,
        kernel: impl Fn(T, MutexGuard<'s, Scratch>) -> O + Sync,
    ) {
        let Self { team, kernels, scratch } = self;
        let (kernels, scratch) = (*kernels, &*scratch);
        let mut tasks: Vec<Option<T>> = tasks.map(Some).collect();
        team.pieces(&mut tasks, 1, |thread, _, tasks| {
            for task in tasks.iter_mut().filter_map(Option::take) {
                let scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
                kernels.run(kernel(task, scratch));
            }
        });
    }
}

/// Returns how many rows of a matrix make a part.
pub(super) fn rows_of_a_part(width: usize) -> usize {
    (PART / width.max(1)).max(1)
}

/// A crew, and the room of each number format.
#[derive(Debug)]
pub(in crate::trainer::torch) struct Compute {
    crew: Crew,
    f32: Workspace<f32>,
    bf16: Workspace<bf16>,
}

impl Compute {
    fn new(threads: usize, kernels: Kernels) -> Result<Self> {
        let crew = Crew::new(threads, kernels)?;
        Ok(Self { crew, f32: Workspace::default(), bf16: Workspace::default() })
    }
}

thread_local! {
    // Per calling thread, as libtorch's number of threads is. A run trains on one thread, so all its models share the
    // room, and a pass finds the memory that the one before it has touched already.
    static COMPUTE: Cell<Option<Box<Compute>>> = const { Cell::new(None) };
}

/// Computes with this thread's crew, as many as libtorch may use.
///
/// # Errors
/// Those of `work`; and when the system gives no more threads.
pub(super) fn with<E: Format, R>(
    work: impl FnOnce(&mut Crew, &mut Workspace<E>) -> Result<R>,
) -> Result<R> {
    let threads = threads();
    let kept = COMPUTE.take().filter(|compute| compute.crew.team.threads() == threads);
    let mut compute = match kept {
        Some(compute) => compute,
        None => Box::new(Compute::new(threads, Kernels::default())?),
    };
    let (crew, room) = E::parts(&mut compute);
    let done = work(crew, room);
    COMPUTE.set(Some(compute));
    done
}

fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// Lets this thread compute with these kernels, until libtorch may use another number of threads.
#[cfg(test)]
pub(in crate::trainer::torch) fn use_kernels(kernels: Kernels) -> Result<()> {
    COMPUTE.set(Some(Box::new(Compute::new(threads(), kernels)?)));
    Ok(())
}

/// A number format that passes compute in.
pub(in crate::trainer::torch) trait Format: Element + Number {
    fn parts(compute: &mut Compute) -> (&mut Crew, &mut Workspace<Self>);

    /// `gradient += a b`, in f32; `scratch` is room for the product.
    fn accumulate(
        a: Matrix<Self>,
        b: Matrix<Self>,
        gradient: &mut [f32],
        scratch: &mut Vec<Self>,
        crew: &mut Crew,
    ) -> Result<()>;
}

impl Format for f32 {
    fn parts(compute: &mut Compute) -> (&mut Crew, &mut Workspace<f32>) {
        (&mut compute.crew, &mut compute.f32)
    }

    fn accumulate(
        a: Matrix<f32>,
        b: Matrix<f32>,
        gradient: &mut [f32],
        _: &mut Vec<f32>,
        _: &mut Crew,
    ) -> Result<()> {
        Ok(multiply_add(a, b, gradient)?)
    }
}

impl Format for bf16 {
    fn parts(compute: &mut Compute) -> (&mut Crew, &mut Workspace<bf16>) {
        (&mut compute.crew, &mut compute.bf16)
    }

    fn accumulate(
        a: Matrix<bf16>,
        b: Matrix<bf16>,
        gradient: &mut [f32],
        scratch: &mut Vec<bf16>,
        crew: &mut Crew,
    ) -> Result<()> {
        let product = super::workspace::room(scratch, gradient.len());
        multiply(a, b, product)?;
        let parts = gradient.chunks_mut(PART).zip(product.chunks(PART));
        crew.each(parts.map(|(sum, part)| Accumulate { sum, part }));
        Ok(())
    }
}
