//! Pure: splits a command into words as a shell would, by the rules of Go's `shlex`.

/// The words of a command. Quotes group, a backslash escapes (not inside single quotes), and a
/// word that begins with `#` starts a comment.
pub(crate) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| is_space(*c)).is_some() {}
        match chars.peek() {
            None => return Ok(words),
            Some('#') => while chars.next_if(|c| *c != '\n').is_some() {},
            Some(_) => words.push(word(&mut chars)?),
        }
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn word(chars: &mut impl Iterator<Item = char>) -> Result<String, &'static str> {
    const OPEN: &str = "EOF found when expecting closing quote";
    const ESCAPE: &str = "EOF found after escape character";
    let mut word = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if is_space(c) => break,
            '\\' => word.push(chars.next().ok_or(ESCAPE)?),
            '\'' => loop {
                match chars.next().ok_or(OPEN)? {
                    '\'' => break,
                    c => word.push(c),
                }
            },
            '"' => loop {
                match chars.next().ok_or(OPEN)? {
                    '"' => break,
                    '\\' => word.push(chars.next().ok_or(ESCAPE)?),
                    c => word.push(c),
                }
            },
            c => word.push(c),
        }
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        for (text, words) in [
            ("", vec![]),
            ("a  b\tc\nd", vec!["a", "b", "c", "d"]),
            (r#"sh -c "a 'b' \" c" 'd "e" \'"#, vec!["sh", "-c", "a 'b' \" c", "d \"e\" \\"]),
            (r"a\ b ''", vec!["a b", ""]),
            ("a # b\nc d#e", vec!["a", "c", "d#e"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert_eq!(split("a 'b"), Err("EOF found when expecting closing quote"));
        assert_eq!(split("a\\"), Err("EOF found after escape character"));
    }
}
