//! The options of `airflow.cfg` that an environment can set in the section `airflow` of its configuration.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

/// What Airflow says of an option.
#[derive(Deserialize)]
#[serde(untagged)]
enum Known {
    Renamed {
        /// `section.option`, its name in this version.
        renamed: String,
    },
    Option {
        #[serde(rename = "type")]
        kind: Kind,
        #[serde(default)]
        sensitive: bool,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    String,
    Integer,
    Float,
    Boolean,
}

type Sections = BTreeMap<String, BTreeMap<String, Known>>;

/// All options by their sections, as the pinned Airflow describes them; `make airflow-options` writes the file.
static KNOWN: LazyLock<Sections> =
    LazyLock::new(|| serde_json::from_str(include_str!("airflow_options/known.json")).unwrap_or_default());

/// Why `section.option` cannot be set, or what to do instead. `section.*` stands for all options of a section but those
/// without a reason.
static RESERVED: LazyLock<BTreeMap<String, Option<String>>> =
    LazyLock::new(|| serde_json::from_str(include_str!("airflow_options/reserved.json")).unwrap_or_default());

/// What Airflow appends to the name of a sensitive option for a command that prints its value, or a name in the secrets
/// backend.
const INDIRECT: [&str; 2] = ["_cmd", "_secret"];

/// The environment variable with which Airflow reads an option.
pub fn variable(section: &str, option: &str) -> String {
    format!("AIRFLOW__{}__{}", section.replace('.', "_"), option).to_ascii_uppercase()
}

/// Whether the value is kept as a Modal Secret: Airflow takes it for sensitive, or only a provider knows.
pub fn is_secret(section: &str, option: &str) -> bool {
    match KNOWN.get(section).map(|options| options.get(option)) {
        Some(Some(Known::Option { sensitive, .. })) => *sensitive,
        Some(_) => is_argument_of_backend(section, option),
        None => true,
    }
}

/// What is wrong with an option or its value, which may be unknown.
pub fn fault(section: &str, option: &str, value: Option<&str>) -> Option<String> {
    if let Some(message) = name_fault(section, option) {
        return Some(message);
    }
    let direct = INDIRECT.iter().find_map(|suffix| option.strip_suffix(suffix)).unwrap_or(option);
    if let Some(reason) = reason(section, option).or_else(|| reason(section, direct)) {
        return Some(format!("cannot be set: {reason}"));
    }
    let Some(options) = KNOWN.get(section) else { return section_fault(section) };
    match options.get(option) {
        Some(Known::Renamed { renamed }) => Some(format!("has another name in this version of Airflow: `{renamed}`")),
        Some(Known::Option { kind, .. }) => value_fault(*kind, value?),
        None if matches!(options.get(direct), Some(Known::Option { sensitive: true, .. })) => None,
        None if is_argument_of_backend(section, option) => None,
        None => Some(unknown_option(section, option, options)),
    }
}

/// What to say of an option that stands outside of any section.
pub fn without_section(option: &str) -> String {
    let sections = sections_with(option);
    match sections.as_slice() {
        [] => "is not a section of Airflow's configuration: write `section: {option: value}`".to_owned(),
        [section, ..] => format!("belongs to a section: write `{section}: {{{option}: …}}`"),
    }
}

/// Why an option is not the user's to set.
fn reason(section: &str, option: &str) -> Option<&'static str> {
    // Where Airflow looks, `api.auth` and `api_auth` are one.
    let section = section.replace('.', "_");
    let found = RESERVED.get(&format!("{section}.{option}")).or_else(|| RESERVED.get(&format!("{section}.*")));
    found?.as_deref()
}

fn name_fault(section: &str, option: &str) -> Option<String> {
    let is_name = |name: &str, more: &[char]| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(&c);
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed)
    };
    let is_section = is_name(section, &['_', '.']) && !section.contains("__");
    if is_section && is_name(option, &['_']) {
        return None;
    }
    let lower = (section.to_ascii_lowercase(), option.to_ascii_lowercase());
    Some(match KNOWN.get(&lower.0).is_some_and(|options| options.contains_key(&lower.1)) {
        true => format!("is written `{}.{}`", lower.0, lower.1),
        false => "is not a valid option name: use lower-case letters, digits and '_'".to_owned(),
    })
}

/// Any other section may be one of a provider, but not one that only looks like one of Airflow's.
fn section_fault(section: &str) -> Option<String> {
    let distance = |known: &str| strsim::damerau_levenshtein(section, known);
    let is_near = |known: &&String| match distance(known) {
        0 | 1 => section.len() > 2,
        2 => section.len() > 7,
        _ => false,
    };
    let nearest = KNOWN.keys().filter(is_near).min_by_key(|known| distance(known))?;
    Some(format!("is in the unknown section `{section}`; did you mean `{nearest}`?"))
}

fn unknown_option(section: &str, option: &str, options: &BTreeMap<String, Known>) -> String {
    const NEAR: f64 = 0.85;
    let likeness = |known: &str| strsim::jaro_winkler(option, known);
    let nearest = options.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let elsewhere = sections_with(option);
    let hint = match (nearest, elsewhere.as_slice()) {
        (_, [other, ..]) => format!("it is in the section `{other}`"),
        (Some(nearest), _) if likeness(nearest) > NEAR => format!("did you mean `{nearest}`?"),
        _ => "Airflow's configuration reference lists all".to_owned(),
    };
    format!("is unknown: Airflow has no such option in the section `{section}`; {hint}")
}

fn sections_with(option: &str) -> Vec<&'static str> {
    let has = |options: &BTreeMap<String, Known>| matches!(options.get(option), Some(Known::Option { .. }));
    KNOWN.iter().filter(|(_, options)| has(options)).map(|(section, _)| section.as_str()).collect()
}

/// One argument of the secrets backend, beside those in `backend_kwargs`.
fn is_argument_of_backend(section: &str, option: &str) -> bool {
    section == "secrets" && option.strip_prefix("backend_kwarg__").is_some_and(|name| !name.is_empty())
}

/// As Airflow reads values. An empty one is the absence of a value.
fn value_fault(kind: Kind, value: &str) -> Option<String> {
    let text = value.trim();
    let (is_valid, expected) = match kind {
        Kind::String => (true, "text"),
        Kind::Integer => (text.parse::<i64>().is_ok(), "a whole number"),
        Kind::Float => (text.parse::<f64>().is_ok(), "a number"),
        Kind::Boolean => {
            let known = ["t", "true", "1", "f", "false", "0"];
            (known.contains(&text.to_ascii_lowercase().as_str()), "true or false")
        }
    };
    (!is_valid && !text.is_empty()).then(|| format!("must be {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_options_are_known_to_airflow() {
        assert!(KNOWN.len() > 20 && RESERVED.len() > 80);
        let is_known = |name: &str| {
            let (section, option) = name.split_once('.').expect("section.option");
            section == "usage_data_collection"
                || KNOWN.get(section).is_some_and(|all| option == "*" || all.contains_key(option))
        };
        let unknown: Vec<_> = RESERVED.keys().filter(|name| !is_known(name)).collect();
        assert_eq!(unknown, [""; 0], "what is reserved is not known to Airflow");
    }

    #[test]
    fn options_that_would_break_an_environment_are_refused() {
        for (section, option, part) in [
            ("core", "parallelism", "set `executor.parallelism`"),
            ("core", "dags_are_paused_at_creation", "set `airflow.dags_are_paused_at_creation`"),
            ("core", "fernet_key", "Secret"),
            ("core", "fernet_key_cmd", "Secret"),
            ("core", "xcom_backend", "XComs"),
            ("database", "sql_alchemy_conn", "`database`"),
            ("database", "sql_alchemy_conn_secret", "`database`"),
            ("api_auth", "jwt_secret", "Secret"),
            ("api.auth", "jwt_secret", "Secret"),
            ("scheduler", "num_runs", "`scheduler`"),
            ("logging", "remote_logging", "`tasks logs`"),
        ] {
            let message = fault(section, option, Some("1")).unwrap_or_default();
            assert!(message.starts_with("cannot be set: ") && message.contains(part), "{section}.{option}: {message}");
        }
    }

    #[test]
    fn unknown_options_are_refused_with_a_suggestion() {
        for (section, option, part) in [
            ("core", "max_map_lenght", "did you mean `max_map_length`?"),
            ("core", "backend", "`secrets`"),
            ("core", "colour_of_the_sky", "reference"),
            ("sensor", "default_timeout", "did you mean `sensors`?"),
            ("cor", "parallelism", "did you mean `core`?"),
            ("Core", "max_map_length", "written `core.max_map_length`"),
            ("core", "max map", "not a valid option name"),
            ("core__x", "y", "not a valid option name"),
            ("core", "", "not a valid option name"),
            ("core", "default_task_retries_cmd", "unknown"),
            ("core", "sql_alchemy_conn", "`database.sql_alchemy_conn`"),
            ("webserver", "base_url", "`api.base_url`"),
            ("webserver", "rbac", "unknown"),
        ] {
            let message = fault(section, option, Some("1")).unwrap_or_default();
            assert!(message.contains(part), "{section}.{option}: {message:?}");
        }
    }

    #[test]
    fn options_for_dags_are_accepted_and_type_checked() {
        for (section, option, value) in [
            ("core", "allowed_deserialization_classes", r"my\..*"),
            ("core", "default_task_retries", "2"),
            ("core", "default_task_execution_timeout", ""),
            ("sensors", "default_timeout", "0.5"),
            ("email", "default_email_on_retry", "False"),
            ("secrets", "backend_kwargs", "{}"),
            ("secrets", "backend_kwargs_cmd", "cat /x"),
            ("secrets", "backend_kwarg__token", "x"),
            ("scheduler", "catchup_by_default", "True"),
            ("smtp", "smtp_port", "587"),
            ("common.io", "xcom_objectstorage_threshold", "1"),
            ("aws", "session_factory", "x"),
            ("elasticsearch_configs", "http_compress", "x"),
        ] {
            assert_eq!(fault(section, option, Some(value)), None, "{section}.{option}");
        }
        for (section, option, value) in
            [("core", "max_map_length", "many"), ("sensors", "default_timeout", "x"), ("secrets", "use_cache", "maybe")]
        {
            assert!(fault(section, option, Some(value)).is_some_and(|message| message.contains("must be")), "{option}");
        }
    }

    #[test]
    fn sensitive_and_provider_options_are_secret() {
        let secret = [("secrets", "backend_kwargs"), ("secrets", "backend_kwarg__token"), ("aws", "session_factory")];
        assert!(secret.iter().all(|(section, option)| is_secret(section, option)));
        let plain = [("core", "max_map_length"), ("secrets", "backend"), ("secrets", "backend_kwargs_cmd")];
        assert!(!plain.iter().any(|(section, option)| is_secret(section, option)));
    }
}
