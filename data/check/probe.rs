//! What a command's loader makes of rows: whether it takes them, and how long they are.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{
    super::{
        Columns, Error, Example, Form, LabeledSample, PairSample, PromptSample, RatedSample, Row,
        Sample, SftSample, Task, TextEncoder, columns::FoundColumns, encoder::Fit,
    },
    Lengths, one,
};

/// A sample whose lengths tell something.
trait Measured: Sample {
    /// Lengths of what.
    const WHAT: &[&str];

    /// How long each is (tokens).
    fn lengths(&self) -> Vec<usize>;
}

impl Measured for SftSample {
    const WHAT: &[&str] = &["tokens", "tokens trained on"];

    fn lengths(&self) -> Vec<usize> {
        vec![self.tokens.len(), self.loss_mask.iter().filter(|&&trained| trained).count()]
    }
}

impl Measured for PairSample {
    const WHAT: &[&str] = &["chosen", "rejected"];

    fn lengths(&self) -> Vec<usize> {
        vec![self.chosen.len(), self.rejected.len()]
    }
}

impl Measured for LabeledSample {
    const WHAT: &[&str] = &["tokens", "completion"];

    fn lengths(&self) -> Vec<usize> {
        vec![self.tokens.len(), self.loss_mask.iter().filter(|&&trained| trained).count()]
    }
}

impl Measured for RatedSample {
    const WHAT: &[&str] = &["tokens"];

    fn lengths(&self) -> Vec<usize> {
        vec![self.tokens.len()]
    }
}

impl Measured for PromptSample {
    const WHAT: &[&str] = &["prompt"];

    fn lengths(&self) -> Vec<usize> {
        vec![self.tokens.ids().len()]
    }
}

/// What became of a row: whether it is cut (or why it is too long to be used), and its lengths before that. Or why it
/// has none.
type Probed = Result<(Result<bool, String>, Vec<usize>), String>;

/// Asks the loader for an example: its rows, where it reads them as they are, and what they mean, where it does not.
type Ask<'a> = dyn Fn(Vec<Row>, &Example) -> Probed + Sync + 'a;

/// The loader of a command, asked row by row.
pub(super) struct Probe<'a> {
    one: Box<Ask<'a>>,
    what: &'static [&'static str],
    lengths: Vec<Vec<usize>>,
}

impl<'a> Probe<'a> {
    /// Makes ready for a file. `direct` has the names of its columns, where the loader reads it as it is.
    ///
    /// # Errors
    /// When the file lacks a column.
    pub(super) fn new(
        task: Task,
        file: &Path,
        direct: Option<&[String]>,
        encoder: &TextEncoder<'a>,
    ) -> Result<Self, Error> {
        match task {
            Task::Sft => Self::of::<SftSample>(task.form(), file, direct, encoder),
            Task::Rm | Task::Dpo => Self::of::<PairSample>(task.form(), file, direct, encoder),
            Task::Regression => Self::of::<RatedSample>(task.form(), file, direct, encoder),
            Task::Kto => Self::of::<LabeledSample>(task.form(), file, direct, encoder),
            Task::Ppo => Self::of::<PromptSample>(task.form(), file, direct, encoder),
        }
    }

    fn of<S: Measured + 'a>(
        form: Form,
        file: &Path,
        direct: Option<&[String]>,
        encoder: &TextEncoder<'a>,
    ) -> Result<Self, Error>
    where
        S::Layout: Send,
    {
        let (exact, whole) = (encoder.clone(), encoder.unlimited());
        let layout =
            direct.map(|names| S::layout(&FoundColumns::named(file, names), &Columns::default()));
        let layout = layout.transpose()?;
        let file: PathBuf = file.into();
        let one = move |rows: Vec<Row>, example: &Example| match &layout {
            Some(layout) => {
                let row = one(rows).ok_or("no row")?;
                measure::<S>(row, layout, &exact, &whole)
            }
            None => {
                let place = rows.first().map(|row| row.place.clone()).ok_or("no row")?;
                let (mut verdict, mut lengths) = (Ok(false), Vec::new());
                for columns in form.write(example.clone())? {
                    let row = Row { place: place.clone(), columns };
                    let found = FoundColumns::of(&file, std::slice::from_ref(&row));
                    let layout = S::layout(&found, &Columns::default())
                        .map_err(|error| error.to_string())?;
                    let (one, long) = measure::<S>(row, &layout, &exact, &whole)?;
                    verdict = verdict.and_then(|before| Ok(before | one?));
                    lengths.extend(long);
                }
                Ok((verdict, lengths))
            }
        };
        Ok(Self { one: Box::new(one), what: S::WHAT, lengths: vec![Vec::new(); S::WHAT.len()] })
    }

    /// Asks for each row whether it is cut, or why it is refused.
    pub(super) fn look(
        &mut self,
        rows: Vec<Vec<Row>>,
        examples: &[Result<Example, String>],
    ) -> Vec<Result<bool, String>> {
        let ask = |(rows, example): (Vec<Row>, &Result<Example, String>)| match example {
            Ok(example) => (self.one)(rows, example),
            Err(reason) => Err(reason.clone()),
        };
        let probed: Vec<Probed> = rows.into_par_iter().zip(examples).map(ask).collect();
        let mut keep = |(verdict, lengths): (_, Vec<usize>)| {
            // A pair of completions by themselves has each length twice.
            let kinds = self.lengths.len();
            for (place, length) in lengths.into_iter().enumerate() {
                self.lengths[place % kinds].push(length);
            }
            verdict
        };
        probed.into_iter().map(|row| row.and_then(&mut keep)).collect()
    }

    /// Returns the distributions of the lengths.
    pub(super) fn lengths(self) -> Vec<Lengths> {
        let named = self.what.iter().zip(self.lengths);
        named.filter_map(|(what, lengths)| Lengths::of(what, lengths)).collect()
    }
}

/// Encodes a row without a limit, and once more with it where it is too long: what is cut may have nothing left to train
/// on.
fn measure<S: Measured>(
    row: Row,
    layout: &S::Layout,
    exact: &TextEncoder<'_>,
    whole: &TextEncoder<'_>,
) -> Probed {
    let (sample, _) = S::of(row.clone(), layout, whole)?;
    let lengths = sample.lengths();
    let long = lengths.iter().any(|&length| length > exact.max_tokens());
    let cut = match long {
        true => S::of(row, layout, exact).map(|(_, fit)| matches!(fit, Fit::Cut)),
        false => Ok(false),
    };
    Ok((cut, lengths))
}
