//! Reads as much Rust as it takes to find the paths that a file names. Comments, strings and test
//! code are left out.

use std::ops::Range;

/// What a source file names.
#[derive(Debug, Default)]
pub struct Names<'a> {
    /// All paths, use trees spelled out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
    pub paths: Vec<Path<'a>>,
    /// The files that it declares for tests only: `#[cfg(test)] mod tests;`.
    pub test_modules: Vec<&'a str>,
}

/// A path of one segment or more, and the line of its last one.
#[derive(Clone, Debug)]
pub struct Path<'a> {
    pub segments: Vec<&'a str>,
    pub line: usize,
}

impl<'a> Names<'a> {
    pub fn read(source: &'a str) -> Self {
        let mut names = Self::default();
        let mut tokens = tokens(source);
        names.take_out_tests(&mut tokens);
        let mut at = 0;
        while at < tokens.len() {
            at = names.path(&tokens, at, &[]);
        }
        names
    }

    /// Reads the path that begins at `at`, if one does. Returns where to go on.
    fn path(&mut self, tokens: &[Token<'a>], mut at: usize, prefix: &[&'a str]) -> usize {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        if !is_name(text(at)) {
            return at + 1;
        }
        let mut segments = prefix.to_vec();
        loop {
            segments.push(text(at));
            let line = tokens[at].line;
            at += 1;
            if text(at) != "::" {
                self.paths.push(Path { segments, line });
                return at;
            }
            at += 1;
            if text(at) == "{" {
                at += 1;
                while at < tokens.len() && text(at) != "}" {
                    at = self.path(tokens, at, &segments);
                }
                return at + 1;
            }
            if !is_name(text(at)) {
                self.paths.push(Path { segments, line });
                return at;
            }
        }
    }

    /// Takes out the items under `#[cfg(test)]`, and notes those that are files.
    fn take_out_tests(&mut self, tokens: &mut Vec<Token<'a>>) {
        let mut at = 0;
        while at < tokens.len() {
            let Some(attribute) = attribute(tokens, at) else {
                at += 1;
                continue;
            };
            let words: Vec<_> = tokens[attribute.clone()].iter().map(|it| it.text).collect();
            let cfg = words.get(2) == Some(&"cfg");
            if !(cfg && words.contains(&"test") && !words.contains(&"not")) {
                at = attribute.end;
                continue;
            }
            let mut item = attribute.end;
            while let Some(another) = self::attribute(tokens, item) {
                item = another.end;
            }
            let end = item + item_length(&tokens[item..]);
            if let [.., module, name, semicolon] = &tokens[item..end]
                && (module.text, semicolon.text) == ("mod", ";")
            {
                self.test_modules.push(name.text);
            }
            tokens.drain(at..end);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// The outer attribute that begins at `at`, with its brackets.
fn attribute(tokens: &[Token<'_>], at: usize) -> Option<Range<usize>> {
    let [hash, open, ..] = tokens.get(at..)? else {
        return None;
    };
    let begins = (hash.text, open.text) == ("#", "[");
    begins.then(|| at..at + 1 + group_length(&tokens[at + 1..]))
}

/// How many tokens belong to the brackets that the first one opens.
fn group_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// How many tokens belong to the item that begins here: up to its semicolon or the end of its braces.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            ";" => return at + 1,
            "{" => return at + group_length(&tokens[at..]),
            "(" | "[" => at += group_length(&tokens[at..]),
            _ => at += 1,
        }
    }
    tokens.len()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let (length, counts) = lexeme(rest, first);
        let (text, after) = rest.split_at(length);
        if counts {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of what comes first in `rest`, and whether it is a token.
fn lexeme(rest: &str, first: char) -> (usize, bool) {
    let until = |end: &str, from: usize| rest[from..].find(end).map(|at| from + at + end.len());
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (comment_length(rest), false);
    }
    if first == '"' {
        return (string_length(rest), false);
    }
    if first == '\'' {
        let mut chars = rest.char_indices().skip(1);
        return match (chars.next(), chars.next()) {
            (Some((_, '\\')), Some((escaped, it))) => {
                let end = until("'", escaped + it.len_utf8());
                (end.unwrap_or(rest.len()), false)
            }
            (Some(_), Some((at, '\''))) => (at + 1, false),
            // A lifetime.
            _ => (1, false),
        };
    }
    if rest.starts_with("::") {
        return (2, true);
    }
    let name = rest
        .find(|next: char| !(next.is_alphanumeric() || next == '_'))
        .unwrap_or(rest.len());
    if name == 0 {
        return (first.len_utf8(), !first.is_whitespace());
    }
    if let "r" | "br" | "cr" = &rest[..name] {
        let hashes = rest[name..].len() - rest[name..].trim_start_matches('#').len();
        if rest[name + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let end = until(&close, name + hashes + 1);
            return (end.unwrap_or(rest.len()), false);
        }
    }
    (name, true)
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, next) in rest.char_indices().skip(1) {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Comments in comments count.
fn comment_length(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}
