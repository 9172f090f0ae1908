//! The command line that does the same as a dialog, ready to paste: quoted, and meaning the same cluster.

use std::borrow::Cow;

use super::request::ProcessAct;

/// Words of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin(String);

impl Twin {
    /// Begins with the program and what makes it mean this cluster: `cachectl --name demo`.
    pub fn of(program: &str) -> Self {
        Self(if program.is_empty() { "cachectl".to_owned() } else { program.to_owned() })
    }

    /// Adds a word, quoted where a shell would take it for something else.
    pub fn word(mut self, word: &str) -> Self {
        self.0.push(' ');
        self.0.push_str(&quoted(word));
        self
    }

    /// Adds a word if it is wanted.
    pub fn flag(self, on: bool, word: &str) -> Self {
        if on { self.word(word) } else { self }
    }

    /// Adds words.
    pub fn words<'a>(self, words: impl IntoIterator<Item = &'a str>) -> Self {
        words.into_iter().fold(self, Twin::word)
    }

    /// `chaos kill n2`; `restart` is a command of its own.
    pub fn process(self, act: ProcessAct, who: &str) -> Self {
        if act == ProcessAct::Restart {
            self.word("restart").word(who)
        } else {
            self.word("chaos").word(act.word()).word(who)
        }
    }

    /// As one line.
    pub fn line(self) -> String {
        self.0
    }
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(Twin::of("").word("add").flag(false, "x").word("2").line(), "cachectl add 2");
        assert_eq!(
            Twin::of("cachectl --name w").process(ProcessAct::Kill, "n2").line(),
            "cachectl --name w chaos kill n2"
        );
        for hostile in ["", "a b", "$(reboot)", "it's", "`x`", "a;b", "*", "~", "\"", "日本"] {
            let out = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(hostile))]).output();
            assert_eq!(out.unwrap().stdout, hostile.as_bytes());
        }
        assert_eq!(quoted("-n"), "-n");
    }
}
