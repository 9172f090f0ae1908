//! Who speaks to the masters: what events say who asked for a change.

use std::sync::OnceLock;

/// The longest name, bytes: a master keeps no more.
const NAME_MAX: usize = 64;
/// The longest part before the `@`, bytes.
const USER_MAX: usize = 31;

/// `user@host`, in letters that are harmless everywhere.
pub fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let said = |v: &str| std::env::var(v).ok().filter(|u| !u.is_empty());
        let user = said("USER").or_else(|| said("LOGNAME"));
        let user = user.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        compose(&user, &host)
    })
}

fn compose(user: &str, host: &str) -> String {
    let plain = |text: &str, max: usize| -> String {
        text.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')).take(max).collect()
    };
    let (user, host) = (plain(user, USER_MAX), plain(host, NAME_MAX - USER_MAX - 1));
    match (user.is_empty(), host.is_empty()) {
        (true, true) => "cli".into(),
        (true, false) => format!("cli@{host}"),
        (false, true) => user,
        (false, false) => format!("{user}@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_harmless() {
        assert_eq!(compose("ana", "laptop\n"), "ana@laptop");
        assert_eq!(compose("a\u{1b}[2Jb c", "h@st"), "a2Jbc@hst");
        assert_eq!(compose("漢", ""), "cli");
        assert_eq!(compose(&"u".repeat(99), &"h".repeat(99)).len(), NAME_MAX);
        assert!(!name().is_empty());
    }
}
