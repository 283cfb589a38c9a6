//! What to write instead of what the TOML reader refuses.

/// Help for a message of the TOML reader.
pub(super) fn help(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown(rest, "this section has");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return unknown(rest, "it can be");
    }
    if message.starts_with("duplicate") {
        return "keep one of the two".to_owned();
    }
    let help = match message.rsplit_once("expected ").map(|(_, expected)| expected) {
        Some(expected) if expected.starts_with("i64") => "write a number, without quotes",
        Some(expected) if expected.starts_with("a boolean") => {
            "write true or false, without quotes"
        }
        Some(expected) if expected.starts_with("a string") => "write text in quotes: \"…\"",
        Some(expected) if expected.starts_with("a sequence") => {
            "write a list in brackets: [\"…\"], or [[bridge]] for a bridge's section"
        }
        Some(expected) if expected.starts_with("struct Ovs") => "write it as a section: [ovs]",
        Some(expected) if expected.starts_with("struct Docker") => {
            "write it as a section: [docker]"
        }
        Some(expected) if expected.starts_with("struct") => "write it as a section: [accelerate]",
        _ => "see the example in `ovs-loader run --help`",
    };
    help.to_owned()
}

/// Help for a name that is not known; `rest` is the name and the known ones, each in backquotes.
fn unknown(rest: &str, known_are: &str) -> String {
    let mut names = rest.split('`').skip(1).step_by(2);
    let name = names.next().unwrap_or_default();
    let known: Vec<_> = names.collect();
    match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{known_are}: {}", known.join(", ")),
    }
}

/// The known name that is at most a third of its letters away.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len().max(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters to insert, delete or replace to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letter_edits() {
        assert_eq!(distance("lease_second", "lease_seconds"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_far_name_gets_the_whole_list() {
        assert_eq!(unknown("`zebra`, expected `local` or `ports`", "has"), "has: local, ports");
        assert_eq!(unknown("`port`, expected `local` or `ports`", "has"), "did you mean `ports`?");
    }
}
