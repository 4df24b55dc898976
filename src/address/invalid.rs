//! The error of an address that cannot be used.

use std::fmt;

/// How much of a refused input an error shows, in characters.
const SHOWN: usize = 80;

/// A text or path that is no usable address.
///
/// Displays the input, what is wrong with it, and what to write instead, in one sentence. The input is shown escaped and
/// cut to 80 characters; user names, passwords, queries and fragments are replaced by `***`, because they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    input: Box<str>,
    fault: Fault,
}

impl InvalidAddress {
    /// `input` was to be a text of the forms that [`Address::parse`](super::Address::parse) reads.
    pub(super) fn in_text(input: &str, fault: Fault) -> Self {
        Self {
            input: escape(&redact(input)),
            fault,
        }
    }

    /// `input` was to be a path, in which nothing has the meaning of a password.
    pub(super) fn in_path(input: &str, fault: Fault) -> Self {
        Self {
            input: escape(input),
            fault,
        }
    }
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { problem, fix } = self.fault;
        write!(f, "invalid address \"{}\": {problem}; {fix}", self.input)
    }
}

impl std::error::Error for InvalidAddress {}

/// What is wrong, and what to do about it: two halves of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    problem: &'static str,
    fix: &'static str,
}

impl Fault {
    pub(super) const fn new(problem: &'static str, fix: &'static str) -> Self {
        Self { problem, fix }
    }
}

/// Hides what stands where a URI has its userinfo, query or fragment.
fn redact(input: &str) -> String {
    let is_scheme = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let after_slashes = input
        .find("://")
        .filter(|at| is_scheme(&input[..*at]))
        .map(|at| at + "://".len());
    let after_unix = || {
        ["unix:", "unix-abstract:"]
            .iter()
            .find(|scheme| input.starts_with(**scheme))
            .map(|scheme| scheme.len())
    };
    let (scheme, rest) = input.split_at(after_slashes.or_else(after_unix).unwrap_or(0));
    let socket = scheme.starts_with("unix") && rest.starts_with(['/', '@']);
    // Up to the last `@`: a password may hold one that should have been escaped. In a socket's name it is just a letter.
    let (userinfo, rest) = match rest.rfind('@') {
        Some(at) if at > 0 && !socket => ("***", &rest[at..]),
        _ => ("", rest),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{scheme}{userinfo}{}***", &rest[..=at]),
        None => format!("{scheme}{userinfo}{rest}"),
    }
}

fn escape(input: &str) -> Box<str> {
    let mut characters = input.chars();
    let mut shown: String = characters
        .by_ref()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAULT: Fault = Fault::new("it is bad", "write a good one");

    #[test]
    fn secrets_are_hidden() {
        let cases = [
            ("http://user:secret@server:80", "http://***@server:80"),
            ("user:secret@server:80", "***@server:80"),
            (
                "tcp://user:se@cret/s#x@server:80/?k=v",
                "tcp://***@server:80/?***",
            ),
            ("http://server/?token=secret", "http://server/?***"),
            ("http://server/#secret", "http://server/#***"),
            ("unix://user:secret@run/x", "unix://***@run/x"),
            ("http:user:secret@server", "***@server"),
            ("user:sec://ret@server", "***@server"),
            ("unix:secret@server:80", "unix:***@server:80"),
            ("unix:@name?secret", "unix:@name?***"),
            ("unix:/run/a@b/", "unix:/run/a@b/"),
            ("unix:///run/a@b/", "unix:///run/a@b/"),
            ("@server:80", "@server:80"),
        ];
        for (input, shown) in cases {
            assert_eq!(
                InvalidAddress::in_text(input, FAULT).to_string(),
                format!("invalid address \"{shown}\": it is bad; write a good one"),
            );
        }
    }

    #[test]
    fn long_and_odd_input_is_cut_and_escaped() {
        let shown = InvalidAddress::in_path("a\r\n\0\"\u{202e}", FAULT).to_string();
        assert_eq!(
            shown,
            r#"invalid address "a\r\n\0\"\u{202e}": it is bad; write a good one"#
        );
        let shown = InvalidAddress::in_path(&"x".repeat(81), FAULT).to_string();
        assert_eq!(
            shown,
            format!(
                "invalid address \"{}…\": it is bad; write a good one",
                "x".repeat(80)
            )
        );
    }

    proptest! {
        #[test]
        fn no_password_is_shown(before in "(http|tcp|)", user in "[a-z]{1,9}", secret in "[!-~]{3,20}X{5}", after in ".{0,20}") {
            let scheme = if before.is_empty() { String::new() } else { format!("{before}://") };
            let input = format!("{scheme}{user}:{secret}@server{after}");
            prop_assume!(!after.contains("QQQQQ"));
            let error = InvalidAddress::in_text(&input, FAULT);
            prop_assert!(!format!("{error} {error:?}").contains("QQQQQ"), "{}", error);
        }
    }
}
