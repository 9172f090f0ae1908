//! Names that nobody knows: what the nearest known one is, and how the error says so.

use super::error::CliError;
use super::output::escape;

/// So many names a hint lists; of more it says how many there are.
const LISTED_MAX: usize = 12;

/// The known word nearest to a mistyped one, if one is near.
pub fn near_miss<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Jaro-Winkler similarity from which on people agree that it was a typing error.
    const NEAR: f64 = 0.75;
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&word, &k.to_lowercase()), k))
        .filter(|(s, _)| *s >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// There is no `what` (`node`, `process`) of that name; exit 1.
pub fn unknown<'a>(code: &str, what: &str, name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> CliError {
    let e = CliError::failed(code, format!("there is no {what} {}", escape(name)));
    match near_miss(name, known.clone()) {
        Some(near) => e.hint(format!("did you mean {}? {}", escape(near), listed(known))),
        None => e.hint(listed(known)),
    }
}

fn listed<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = known.into_iter().map(escape).collect();
    match all.len() {
        0 => "there is none; `cachectl status` shows what there is".into(),
        1 => format!("there is only {}", all[0]),
        n if n <= LISTED_MAX => format!("there are {}", all.join(", ")),
        n => format!("there are {n}: {}, …", all[..LISTED_MAX].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_named_and_all_are_listed() {
        let hint = |name: &str, known: &[&str]| {
            let CliError::Failed(_, f) = unknown("NO_NODE", "node", name, known.iter().copied()) else { panic!() };
            (f.message, f.hint.unwrap())
        };
        assert_eq!(
            hint("N1", &["n1", "n2"]),
            ("there is no node N1".into(), "did you mean n1? there are n1, n2".into())
        );
        assert_eq!(hint("x\u{1b}", &["n1"]), ("there is no node x\\x1b".into(), "there is only n1".into()));
        assert!(hint("x", &[]).1.contains("`cachectl status`"));
        let many: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
        let (_, hint) = hint("zz", &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(hint.starts_with("there are 40: n0, ") && hint.ends_with("n11, …"), "{hint}");
    }
}
