//! Words of Dockerfiles and of shell commands: quotes, variables, and where one command ends.

use std::{iter::Peekable, str::Chars};

/// Finds the value of a variable; `None` if it has none.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The words of an instruction that Docker itself reads, such as `ENV` or `COPY`, with variables replaced.
pub fn instruction_words(text: &str, lookup: Lookup<'_>) -> Vec<String> {
    let mut scanner = Scanner { chars: text.chars().peekable(), lookup, shell: false };
    // Only shell syntax can be too complex.
    scanner.commands().unwrap_or_default().into_iter().flatten().collect()
}

/// The simple commands of a shell line, which run one after the other while they succeed; `None` if only a real shell
/// can tell what the line does.
pub fn shell_commands(text: &str, lookup: Lookup<'_>) -> Option<Vec<Vec<String>>> {
    let mut scanner = Scanner { chars: text.chars().peekable(), lookup, shell: true };
    let commands = scanner.commands()?;
    commands.iter().all(|command| !command.is_empty()).then_some(commands)
}

/// Whether a quote is still open at the end of a text, so that the next line belongs to it.
pub fn is_open(text: &str) -> bool {
    let (mut quote, mut chars) = (None, text.chars());
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None | Some('"'), '\\') => drop(chars.next()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    quote.is_some()
}

struct Scanner<'a> {
    chars: Peekable<Chars<'a>>,
    lookup: Lookup<'a>,
    shell: bool,
}

impl Scanner<'_> {
    fn commands(&mut self) -> Option<Vec<Vec<String>>> {
        let (mut commands, mut command) = (Vec::new(), Vec::new());
        // A word may be empty: ''.
        let mut word: Option<String> = None;
        while let Some(c) = self.chars.next() {
            match c {
                c if c.is_whitespace() => command.extend(word.take()),
                '\'' => self.quoted(word.get_or_insert_default())?,
                '"' => self.double_quoted(word.get_or_insert_default())?,
                '\\' => word.get_or_insert_default().extend(self.chars.next().filter(|c| *c != '\n')),
                '$' => {
                    let value = self.variable(false)?;
                    if !value.is_empty() {
                        word.get_or_insert_default().push_str(&value);
                    }
                }
                '&' if self.shell => {
                    self.chars.next_if_eq(&'&')?;
                    command.extend(word.take());
                    commands.push(std::mem::take(&mut command));
                }
                ';' | '|' | '<' | '>' | '(' | ')' | '`' | '*' | '?' | '#' | '!' | '~' if self.shell => return None,
                c => word.get_or_insert_default().push(c),
            }
        }
        command.extend(word);
        commands.push(command);
        Some(commands)
    }

    fn quoted(&mut self, word: &mut String) -> Option<()> {
        loop {
            match self.chars.next() {
                Some('\'') => return Some(()),
                Some(c) => word.push(c),
                None => return (!self.shell).then_some(()),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut String) -> Option<()> {
        loop {
            match self.chars.next() {
                Some('"') => return Some(()),
                Some('\\') => match self.chars.next()? {
                    c @ ('"' | '\\' | '$' | '`') => word.push(c),
                    '\n' => {}
                    c => word.extend(['\\', c]),
                },
                Some('$') => word.push_str(&self.variable(true)?),
                Some('`') if self.shell => return None,
                Some(c) => word.push(c),
                None => return (!self.shell).then_some(()),
            }
        }
    }

    /// The value of a variable, after a `$`.
    fn variable(&mut self, quoted: bool) -> Option<String> {
        let value = match self.chars.peek() {
            Some('{') => {
                self.chars.next();
                self.braced()?
            }
            Some('(') if self.shell => return self.interpreter(),
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
                let name = self.name();
                (self.lookup)(&name).unwrap_or_default()
            }
            Some('$' | '?' | '#' | '@' | '*' | '!' | '0'..='9') if self.shell => return None,
            _ => return Some("$".to_owned()),
        };
        // A shell would split it into several words.
        let split = self.shell && !quoted && value.contains(char::is_whitespace);
        (!split).then_some(value)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn braced(&mut self) -> Option<String> {
        let name = self.name();
        let mut rest = String::new();
        loop {
            match self.chars.next()? {
                '}' => break,
                c => rest.push(c),
            }
        }
        let value = (self.lookup)(&name);
        let filled = value.as_ref().is_some_and(|value| !value.is_empty());
        if let Some(default) = rest.strip_prefix(":-") {
            return Some(if filled { value.unwrap_or_default() } else { default.to_owned() });
        }
        if let Some(alternative) = rest.strip_prefix(":+") {
            return Some(if filled { alternative.to_owned() } else { String::new() });
        }
        rest.is_empty().then(|| value.unwrap_or_default())
    }

    /// `$(command -v python)`, by which the SDK means the interpreter. No other command is evaluated to a word.
    fn interpreter(&mut self) -> Option<String> {
        let mut inner = String::new();
        self.chars.next();
        loop {
            match self.chars.next()? {
                ')' => break,
                c => inner.push(c),
            }
        }
        let words: Vec<&str> = inner.split_whitespace().collect();
        matches!(words[..], ["command", "-v", "python" | "python3"] | ["which", "python" | "python3"])
            .then(|| "python".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "NAME" => Some("value".to_owned()),
            "TWO" => Some("a b".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn quotes_and_variables_of_instructions_are_expanded() {
        let words = |text| instruction_words(text, &lookup);
        assert_eq!(words(r#"A=1 B='x $NAME' C="$NAME y" D=a\ b E="#), ["A=1", "B=x $NAME", "C=value y", "D=a b", "E="]);
        assert_eq!(
            words("P=/bin:$NAME ${NONE:-d} ${NAME:+there} $TWO (x)"),
            ["P=/bin:value", "d", "there", "a b", "(x)"]
        );
        assert_eq!(words("Q='it'\"'\"'s'"), ["Q=it's"]);
        assert!(is_open("A='x") && !is_open("A='x' B=\\'"));
    }

    #[test]
    fn complex_shell_lines_are_not_parsed() {
        let commands = |text| shell_commands(text, &lookup);
        let expected = vec![vec!["cd".to_owned(), "/x".into()], vec!["pip".into(), "install".into(), "a>=1".into()]];
        assert_eq!(commands("cd /x && pip install 'a>=1'"), Some(expected));
        assert_eq!(
            commands("uv --python $(command -v python)"),
            Some(vec![vec!["uv".into(), "--python".into(), "python".into()]])
        );
        for complex in ["a | b", "a > b", "a; b", "a &", "echo `b`", "echo $(b)", "a $TWO", "a && ", "a \"b", "ls *"] {
            assert_eq!(commands(complex), None, "{complex}");
        }
        assert_eq!(commands("a \"$TWO\""), Some(vec![vec!["a".into(), "a b".into()]]));
    }
}
