//! A light reader of Rust source: code without comments, strings and tests, and the paths in it.
//!
//! It knows just enough of the syntax for the rules that use it. It does not expand macros.

/// The text with comments and the contents of literals blanked, line breaks kept.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip_at(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends; `at` when none starts there.
fn skip_at(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at, '"'),
        'r' | 'b' | 'c' if at == 0 || !is_word(chars[at - 1]) => raw_string_end(chars, at),
        // A lifetime has no closing quote within two characters.
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => {
            quoted_end(chars, at, '\'')
        }
        _ => at,
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| wanted(c)).map_or(chars.len(), |found| from + found)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`; other words give `start`.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let Some(r) = (start..start + 2).find(|&at| chars.get(at) == Some(&'r')) else { return start };
    let quote = find(chars, r + 1, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return start;
    }
    let hashes = quote - r - 1;
    let closes = |at: usize| {
        chars[at] == '"'
            && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (quote + 1..chars.len()).find(|&at| closes(at)).map_or(chars.len(), |at| at + 1 + hashes)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Code with each `#[cfg(test)]` module blanked. Takes what [`code_only`] gives.
pub(super) fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    let mut from = 0;
    while let Some(found) = kept[from..].find("#[cfg(test)]") {
        let start = from + found;
        from = start + 1;
        let rest = &kept[start..];
        let is_module = rest["#[cfg(test)]".len()..].trim_start().starts_with("mod ");
        if let (true, Some(end)) = (is_module, block_end(rest)) {
            let blank: String =
                rest[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            kept = format!("{}{blank}{}", &kept[..start], &kept[start + end..]);
        }
    }
    kept
}

/// The byte after the brace that closes the first opened one; none before a `;`.
fn block_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            ';' if depth == 0 => return None,
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at + 1),
            '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// A path in the source, each part of a `{…}` group by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) segments: Vec<String>,
    /// The name after `as`.
    pub(super) alias: Option<String>,
    /// From 1.
    pub(super) line: usize,
}

/// Every path that starts with `crate` or `super`. Takes what [`code_only`] gives.
pub(super) fn inner_paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = matches!(tokens[at].text.as_str(), "crate" | "super")
            && tokens.get(at + 1).is_some_and(|token| token.text == "::")
            && (at == 0 || tokens[at - 1].text != "::");
        if starts {
            at = read_tree(&tokens, at, &[], &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Every path of a `pub use` item. Takes what [`code_only`] gives.
pub(super) fn re_exports(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    for at in 0..tokens.len().saturating_sub(2) {
        if tokens[at].text == "pub" && tokens[at + 1].text == "use" {
            read_tree(&tokens, at + 2, &[], &mut paths);
        }
    }
    paths
}

/// True when `word` stands in the code by itself. Takes what [`code_only`] gives.
pub(super) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    tokens(code).iter().filter(|token| token.text == word).map(|token| token.line).collect()
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

fn tokens(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = match chars[at] {
            c if is_word(c) => find(&chars, at, |c| !is_word(c)),
            ':' if chars.get(at + 1) == Some(&':') => at + 2,
            _ => at + 1,
        };
        if chars[at] == '\n' {
            line += 1;
        } else if !chars[at].is_whitespace() {
            tokens.push(Token { text: chars[at..end].iter().collect(), line });
        }
        at = end;
    }
    tokens
}

/// Reads the path or group at `at` below `prefix` into `paths`; gives the token after it.
fn read_tree(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<Path>) -> usize {
    let mut segments = prefix.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let line = tokens.get(at).map_or(0, |token| token.line);
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = if text(at) == "," {
                        at + 1
                    } else {
                        read_tree(tokens, at, &segments, paths).max(at + 1)
                    };
                }
                return at + 1;
            }
            word if word.chars().all(is_word) && !word.is_empty() || word == "*" => {
                segments.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    let alias = (text(at) == "as").then(|| text(at + 1).to_owned());
    at += if alias.is_some() { 2 } else { 0 };
    paths.push(Path { segments, alias, line });
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(paths: &[Path]) -> Vec<String> {
        paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn blanks_comments_and_literals() {
        for hidden in [
            "// crate::a",
            "/* x /* y */ crate::a */",
            "\"crate::a \\\" crate::a\"",
            "r#\"crate::a \" crate::a\"#",
            "br\"crate::a\"",
            "/// crate::a",
        ] {
            let code = code_only(&format!("{hidden}\nlet x = crate::b;"));
            assert_eq!(joined(&inner_paths(&code)), ["crate::b"], "{hidden}");
        }
    }

    #[test]
    fn keeps_lifetimes_and_skips_characters() {
        assert_eq!(code_only("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(lines_with_word(&code_only("let q = '\"'; unsafe {}"), "unsafe"), [1]);
        assert_eq!(lines_with_word(&code_only("let q = '\\''; unsafe {}"), "unsafe"), [1]);
        assert_eq!(lines_with_word("not_unsafe unsafe_code", "unsafe"), [0_usize; 0]);
    }

    #[test]
    fn expands_groups() {
        let found = inner_paths("use crate::{a::{B, c::*}, d as e};\nx(crate::F::<u8>::new());");
        assert_eq!(joined(&found), ["crate::a::B", "crate::a::c::*", "crate::d", "crate::F"]);
        assert_eq!(found[2].alias.as_deref(), Some("e"));
        assert_eq!(found[3].line, 2);
    }

    #[test]
    fn visibility_is_no_path() {
        assert_eq!(inner_paths("pub(crate) fn f() {} pub(super) struct S;"), []);
    }

    #[test]
    fn reads_re_exports() {
        let found = re_exports("pub use error::{Error, Result as R};\nuse core::X;\npub use a::B;");
        assert_eq!(joined(&found), ["error::Error", "error::Result", "a::B"]);
        assert_eq!(found[1].alias.as_deref(), Some("R"));
    }

    #[test]
    fn leaves_test_modules_out() {
        let code =
            "use crate::a;\n#[cfg(test)]\nmod tests {\n fn f() { crate::b() }\n}\nuse crate::c;";
        assert_eq!(joined(&inner_paths(&without_tests(code))), ["crate::a", "crate::c"]);
        let outline = "#[cfg(test)]\nmod tests;\nfn f() { crate::b() }";
        assert_eq!(joined(&inner_paths(&without_tests(outline))), ["crate::b"]);
        let function = "#[cfg(test)]\nfn f() { crate::b() }";
        assert_eq!(joined(&inner_paths(&without_tests(function))), ["crate::b"]);
    }

    #[test]
    fn survives_broken_source() {
        for text in ["crate::{a", "\"open", "/* open", "'", "r#\"", "#[cfg(test)] mod t {", "}"] {
            let code = without_tests(&code_only(text));
            drop((inner_paths(&code), re_exports(&code)));
        }
    }
}
