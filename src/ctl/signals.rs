//! Signals by name. The numbers are the kernel's for this machine: the daemon runs on the same one.

use nix::sys::signal::Signal;

/// The highest signal number: the last real-time signal on every machine Linux supports but MIPS.
const SIGNAL_MAX: u8 = 64;

/// The number behind `TERM`, `SIGTERM`, `sigterm` or `15`.
pub fn number(word: &str) -> Option<u8> {
    if let Ok(number) = word.parse::<u8>() {
        return (1..=SIGNAL_MAX).contains(&number).then_some(number);
    }
    let short = short(word);
    Signal::iterator().find(|signal| name_of(*signal) == short).map(|signal| signal as u8)
}

/// A signal's name as people type it, in capitals and without `SIG`.
pub fn short(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    upper.strip_prefix("SIG").unwrap_or(&upper).to_string()
}

/// `SIGTERM`, or `signal 34` where there is no name.
pub fn name(number: u8) -> String {
    match Signal::try_from(i32::from(number)) {
        Ok(signal) => signal.as_str().to_string(),
        Err(_) => ["signal ", &number.to_string()].concat(),
    }
}

/// All names, without `SIG`.
pub fn names() -> impl Iterator<Item = &'static str> {
    Signal::iterator().map(name_of)
}

fn name_of(signal: Signal) -> &'static str {
    signal.as_str().strip_prefix("SIG").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_signal_is_its_number() {
        for word in ["TERM", "SIGTERM", "term", "SigTerm", "15"] {
            assert_eq!(number(word), Some(15), "{word}");
        }
        assert_eq!(number("34"), Some(34));
        for word in ["", "0", "65", "256", "-1", "TERMS", "SIG"] {
            assert_eq!(number(word), None, "{word}");
        }
    }

    #[test]
    fn numbers_have_their_names_back() {
        assert_eq!(name(9), "SIGKILL");
        assert_eq!(name(34), "signal 34");
        assert_eq!(names().count(), Signal::iterator().count());
    }
}
