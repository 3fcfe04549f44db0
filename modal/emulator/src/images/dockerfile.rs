//! Parsing of Dockerfile instructions; `evaluate` interprets them.

use super::{BuildError, words};

/// An instruction. Texts are unchanged, with variables not replaced.
#[derive(Debug, PartialEq, Eq)]
pub enum Instruction {
    From(String),
    /// A line for the shell.
    Run(String),
    /// A program with its arguments.
    RunDirectly(Vec<String>),
    Env(String),
    Workdir(String),
    Copy(String),
    CopyList(Vec<String>),
    Arg(String),
    Shell(Vec<String>),
    /// An instruction with a here-document; its first line.
    HereDocument(String),
    /// An instruction without effect on Python; its keyword.
    Other(String),
}

/// Parses instructions from commands. A command may be a line, several lines, or a part of a line that continues in the
/// next command.
pub fn parse(commands: &[String]) -> Result<Vec<Instruction>, BuildError> {
    let mut lines = commands.iter().flat_map(|command| command.split('\n'));
    let mut instructions = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut text = line.to_owned();
        while let Some(begun) = text.trim_end().strip_suffix('\\').map(str::to_owned) {
            let Some(next) = lines.find(|line| !line.trim_start().starts_with('#')) else {
                text = begun;
                break;
            };
            text = format!("{begun}{next}");
        }
        // Values from the SDK may contain line breaks in quotes.
        while text.trim_start().to_ascii_uppercase().starts_with("ENV ") && words::is_open(&text) {
            let Some(next) = lines.next() else { break };
            text = format!("{text}\n{next}");
        }
        let instruction = instruction(text.trim())?;
        if let Instruction::HereDocument(first) = &instruction {
            let delimiter = delimiter(first);
            // If it does not end, it takes the rest of the file.
            let _ = lines.find(|line| line.trim() == delimiter);
        }
        instructions.push(instruction);
    }
    Ok(instructions)
}

fn instruction(text: &str) -> Result<Instruction, BuildError> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (keyword, rest) = (keyword.to_ascii_uppercase(), rest.trim());
    let list = || serde_json::from_str::<Vec<String>>(rest).ok();
    if rest.contains("<<") && matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return Ok(Instruction::HereDocument(text.to_owned()));
    }
    Ok(match keyword.as_str() {
        "FROM" => Instruction::From(rest.to_owned()),
        "RUN" => list().map_or_else(|| Instruction::Run(rest.to_owned()), Instruction::RunDirectly),
        "ENV" => Instruction::Env(rest.to_owned()),
        "WORKDIR" => Instruction::Workdir(rest.to_owned()),
        "COPY" | "ADD" => list().map_or_else(|| Instruction::Copy(rest.to_owned()), Instruction::CopyList),
        "ARG" => Instruction::Arg(rest.to_owned()),
        "SHELL" => {
            Instruction::Shell(list().ok_or_else(|| BuildError(format!("{text}\nis not a JSON list of words")))?)
        }
        "CMD" | "ENTRYPOINT" | "LABEL" | "EXPOSE" | "USER" | "VOLUME" | "STOPSIGNAL" | "HEALTHCHECK" | "MAINTAINER"
        | "ONBUILD" => Instruction::Other(keyword),
        _ => return Err(BuildError(format!("{text}\n{keyword} is not an instruction of a Dockerfile"))),
    })
}

/// The word that ends a here-document.
fn delimiter(first: &str) -> String {
    let after = first.split_once("<<").map_or("", |(_, after)| after);
    let word = after.trim_start_matches(['-', '<']).trim_start().trim_start_matches(['\'', '"']);
    word.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerfile_commands_are_split_and_joined_like_docker() {
        let commands = [
            "FROM base",
            "# a comment",
            "RUN cd /tmp/poetry && \\ ",
            "  poetry config a false && \\ ",
            "poetry install",
            "ENV A='x\ny' B=2\nWORKDIR /w",
            "run [\"pip\", \"list\"]",
            "COPY --from=x /uv /.uv/uv",
            "RUN <<-'END' python",
            "COPY nothing",
            "END",
            "CMD [\"sleep\", \"1\"]",
        ];
        let parsed = parse(&commands.map(str::to_owned)).unwrap();
        let expected = [
            Instruction::From("base".into()),
            Instruction::Run("cd /tmp/poetry &&   poetry config a false && poetry install".into()),
            Instruction::Env("A='x\ny' B=2".into()),
            Instruction::Workdir("/w".into()),
            Instruction::RunDirectly(vec!["pip".into(), "list".into()]),
            Instruction::Copy("--from=x /uv /.uv/uv".into()),
            Instruction::HereDocument("RUN <<-'END' python".into()),
            Instruction::Other("CMD".into()),
        ];
        assert_eq!(parsed, expected);
        assert!(parse(&["FETCH x".to_owned()]).is_err());
    }
}
