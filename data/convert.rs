//! A file of any schema into the JSON Lines that our loaders read.

use std::path::Path;

use super::{
    Error, Form, Reading, Report, RowFile, Schema,
    examples::{Examples, Group},
};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The schema that it was read by.
    pub schema: Schema,
    /// How many rows were read, and which could not be used.
    pub report: Report,
    /// How many rows were written.
    pub written: usize,
}

/// Writes the examples of `input` to `output`, row by row. The output is there whole at the end, or not at all.
///
/// # Errors
/// When the input cannot be read, is of no known schema, or has a broken line; when no row is left; and when the output
/// cannot be written, or is there already and may not be replaced.
pub fn convert(
    input: &Path,
    output: &Path,
    (form, reading): (Form, &Reading),
    replace: bool,
) -> Result<Converted, Error> {
    let mut file = RowFile::create(output, replace)?;
    let mut examples = Examples::open(input, reading)?;
    let mut converted =
        Converted { schema: examples.schema(), report: Report::default(), written: 0 };
    for group in &mut examples {
        converted.group(group?, form, &mut file)?;
    }
    if converted.written == 0 {
        return Err(Error::NothingLeft(converted.report.to_string()));
    }
    file.finish()?;
    Ok(converted)
}

impl Converted {
    fn group(&mut self, group: Group, form: Form, file: &mut RowFile) -> Result<(), Error> {
        let places: Vec<_> = group.places().collect();
        match group.example.and_then(|example| form.write(example)) {
            Ok(rows) => {
                for row in rows {
                    file.write(&row)?;
                    self.written += 1;
                }
                places.iter().for_each(|_| self.report.use_row(false));
            }
            Err(reason) => {
                places.into_iter().for_each(|place| self.report.refuse_row(place, reason.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;

    const PAIRS: &str = "{\"prompt\": \"p\", \"chosen_response\": \"c\", \"rejected_response\": \"r\"}\n\
                         {\"prompt\": \"p\", \"chosen_response\": \"c\", \"rejected_response\": \"c\"}\n";

    fn input(content: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
        fs::write(&input, content).unwrap();
        (folder, input, output)
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn to(form: Form) -> (Form, &'static Reading) {
        const READING: &Reading =
            &Reading { schema: None, columns: Vec::new(), attributes: Vec::new() };
        (form, READING)
    }

    #[test]
    fn rows_that_can_be_used_are_written_and_the_others_counted() {
        let (_folder, input, output) = input(PAIRS);
        let converted = convert(&input, &output, to(Form::Unpaired), false).unwrap();
        assert_eq!(
            fs::read_to_string(&output).unwrap(),
            "{\"prompt\":\"p\",\"completion\":\"c\",\"label\":true}\n\
             {\"prompt\":\"p\",\"completion\":\"r\",\"label\":false}\n"
        );
        let Converted { schema, report, written } = converted;
        assert_eq!((schema, report.rows, report.used, written), (Schema::NemoDpo, 2, 1, 2));
        assert!(report.to_string().contains("chosen and rejected are the same"), "{report}");
    }

    #[test]
    fn ratings_may_be_called_anything_where_they_are_named() {
        let row = "{\"prompt\": \"p\", \"completion\": \"c\", \"fluency\": 2, \"humor\": 1}\n";
        let (_folder, input, output) = input(row);
        let named = |name: &str| Reading { attributes: vec![name.into()], ..Reading::default() };
        convert(&input, &output, (Form::SteerLm, &named("fluency")), false).unwrap();
        let written = "{\"prompt\":\"fluency:2\\np\",\"completion\":\"c\",\"humor\":1}\n";
        assert_eq!(fs::read_to_string(&output).unwrap(), written);
        let refused = |name: &str| {
            convert(&input, &output, (Form::SteerLm, &named(name)), true).unwrap_err().to_string()
        };
        assert!(refused("honesty").contains("1 not: has no rating"), "{}", refused("honesty"));
        assert!(
            refused("prompt").contains("has no rating"),
            "what is no rating is not taken for one"
        );
    }

    #[test]
    fn a_conversion_that_fails_leaves_nothing() {
        let broken = PAIRS.to_owned() + "{\"prompt\": \n";
        let table = [
            (broken.as_str(), "out.jsonl", "in.jsonl:3: malformed JSON"),
            (PAIRS, "out.parquet", "the name must end in .jsonl"),
            ("{\"prompt\": \"p\"}\n", "out.jsonl", "nothing to use: 0 of 1 rows used"),
            ("{\"x\": 1}\n", "out.jsonl", "is of no schema that is known"),
        ];
        for (content, name, wanted) in table {
            let (folder, input, _) = input(content);
            let output = folder.path().join(name);
            let said = convert(&input, &output, to(Form::Preference), false).unwrap_err();
            assert!(said.to_string().contains(wanted), "{said}");
            assert_eq!(names(folder.path()), 1, "{wanted}");
        }
    }

    #[test]
    fn an_output_is_replaced_only_where_that_is_asked_for() {
        let (folder, input, output) = input(PAIRS);
        fs::write(&output, "mine").unwrap();
        let said = convert(&input, &output, to(Form::Preference), false).unwrap_err().to_string();
        assert!(said.ends_with("out.jsonl: exists already"), "{said}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
        convert(&input, &output, to(Form::Preference), true).unwrap();
        let row = "{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"r\"}\n";
        assert_eq!(fs::read_to_string(&output).unwrap(), row);
        assert_eq!(names(folder.path()), 2);
        // A file may be converted onto itself.
        convert(&output, &output, to(Form::Preference), true).unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), row);
    }

    #[test]
    fn a_file_with_the_rights_of_any_new_file_is_left() {
        let (folder, input, output) = input(PAIRS);
        convert(&input, &output, to(Form::Preference), false).unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&output), mode(&plain));
    }
}
