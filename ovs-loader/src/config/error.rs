//! What is wrong with a configuration file, and where.

use std::fmt;
use std::io;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// A mistake within the text.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) span: Range<usize>,
    pub(super) problem: String,
    pub(super) help: String,
}

impl Mistake {
    pub(super) fn new(
        span: Range<usize>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { span, problem: problem.into(), help: help.into() }
    }
}

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("cannot read the configuration {file}: {}", unreadable(source))]
    Unreadable {
        /// Its path as given.
        file: String,
        /// What the system said, which the message says already.
        source: io::Error,
    },
    /// The file says something that is wrong.
    #[error("{0}")]
    Invalid(Box<Invalid>),
}

/// Something that is wrong in a configuration file.
#[derive(Debug)]
pub struct Invalid {
    /// The line it is in, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub help: String,
    source: NamedSource<String>,
    span: Range<usize>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source.name(), self.line, self.problem)
    }
}

impl Error {
    pub(super) fn mistake(file: &str, text: &str, mistake: Mistake) -> Self {
        let Mistake { span, problem, help } = mistake;
        // What is missing at the end of the text is reported in its last line.
        let start = span.start.min(text.trim_end().len());
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        let source = NamedSource::new(file, text.to_owned());
        let span = start..span.end.clamp(start, text.len());
        Self::Invalid(Box::new(Invalid { line, problem, help, source, span }))
    }
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file: give the path of a TOML file".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory: give the path of a TOML file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied: run as root".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

impl Diagnostic for Error {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self {
            Self::Invalid(invalid) => Some(Box::new(&invalid.help)),
            Self::Unreadable { .. } => None,
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.source),
            Self::Unreadable { .. } => None,
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match self {
            Self::Invalid(invalid) => {
                Some(Box::new([LabeledSpan::underline(invalid.span.clone())].into_iter()))
            }
            Self::Unreadable { .. } => None,
        }
    }
}
