//! Names and texts of others, made fit for a terminal: a stored name may hold any bytes, and a terminal obeys some.

use std::fmt::Write;

/// A name for a person's eyes: printable text stays, all else becomes `\n`, `\xff` or `\u{202e}`. No two names
/// look the same.
pub(crate) fn name(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c == '\\' {
                shown.push_str("\\\\");
            } else {
                push(&mut shown, c);
            }
        }
        for byte in part.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// A message with names in it: line breaks stay, whatever else moves a cursor or hides text does not.
pub(crate) fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' {
            shown.push(c);
        } else {
            push(&mut shown, c);
        }
    }
    shown
}

fn push(shown: &mut String, c: char) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\t' => shown.push_str("\\t"),
        '\r' => shown.push_str("\\r"),
        c if c.is_control() || reorders(c) => {
            let _ = write!(shown, "{}", c.escape_unicode());
        }
        c => shown.push(c),
    }
}

/// Characters that show nothing themselves but change the order or the lines of what is around them.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(name(b"plain name \xc3\xa4"), "plain name ä");
        assert_eq!(name(b"\x1b[2Jboo\x07"), "\\u{1b}[2Jboo\\u{7}");
        assert_eq!(name("gpj\u{202e}exe".as_bytes()), "gpj\\u{202e}exe");
        assert_eq!(name(b"two\nlines\\n"), "two\\nlines\\\\n");
        assert_eq!(name(b"\xff\xfe.txt"), "\\xff\\xfe.txt");
        assert_eq!(text("a\nb\x1bc\\"), "a\nb\\u{1b}c\\");
    }

    proptest::proptest! {
        #[test]
        fn no_two_names_look_the_same(a: Vec<u8>, b: Vec<u8>) {
            proptest::prop_assert_eq!(name(&a) == name(&b), a == b);
            proptest::prop_assert!(!name(&a).chars().any(char::is_control));
        }
    }
}
