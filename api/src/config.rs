//! The configuration of an environment: the content of `config.yaml`.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, Object, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

use crate::{airflow_options, environment::Target, problem::Fault, secret::Secret};

/// The content of `config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it runs: `modal` if the daemon has credentials when the environment is created, otherwise `local`. What is
    /// there cannot move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(default, skip_serializing_if = "ModalSettings::is_default")]
    pub modal: ModalSettings,
    pub database: Database,
    /// The same as `database.connection_string`; accepted here too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<Secret>,
    #[serde(default)]
    pub scheduler: Scheduler,
    #[serde(default)]
    pub executor: Executor,
    #[serde(default)]
    pub airflow: Airflow,
    /// Variables for the processes in which DAGs are parsed and tasks run, such as `AIRFLOW_VAR_*` and
    /// `AIRFLOW_CONN_*`.
    /// Their values are kept as a Modal Secret: answers have the names, with `null` for each value. In an update `null`
    /// leaves a value as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = texts_or_null)]
    pub env: BTreeMap<String, Option<Secret>>,
}

/// An object of secret texts, of which each may be absent.
fn texts_or_null() -> Object {
    let value = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)));
    ObjectBuilder::new().additional_properties(Some(Schema::from(value))).build()
}

/// Options for Modal's cloud only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModalSettings {
    /// Modal environment; default: the one of the workspace.
    pub environment: String,
}

impl ModalSettings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Airflow's metadata database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    #[serde(rename = "type")]
    pub kind: DatabaseKind,
    /// `postgresql://user:password@host:port/database`; only with `type: postgres`. Kept as a Modal Secret, and in no
    /// answer. An update without it leaves it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<Secret>,
    /// The certificates in PEM, to one of which that of the PostgreSQL server has to go back. With it, `sslmode` is
    /// `verify-full` unless the connection string says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_certificate: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseKind {
    /// A file on the environment's Volume.
    #[default]
    Sqlite,
    /// A PostgreSQL server of yours.
    Postgres,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scheduler {
    /// Seconds between two ticks of the scheduler's cron, 1 to 86400.
    #[schema(minimum = 1, maximum = 86400)]
    pub interval_seconds: u32,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self { interval_seconds: 60 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Executor {
    /// Maximum number of tasks at the same time, 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    pub parallelism: u32,
    /// Timeout of a task in seconds, 1 to 86400; its `execution_timeout` can only be shorter.
    #[schema(minimum = 1, maximum = 86400)]
    pub task_timeout: u32,
}

impl Default for Executor {
    fn default() -> Self {
        Self { parallelism: 16, task_timeout: 3600 }
    }
}

/// Airflow's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Airflow {
    /// Whether a DAG is paused when it first appears.
    pub dags_are_paused_at_creation: bool,
    /// Options as in `airflow.cfg`: `{section: {option: value}}`. A value is a text, a number or a boolean; answers
    /// have
    /// texts. Options that Airflow considers sensitive, and those of providers, are kept as a Modal Secret: answers
    /// have `null` for each, and in an update `null` leaves a value as it is.
    #[serde(flatten)]
    pub options: BTreeMap<String, Options>,
}

/// A section of `airflow.cfg`, with the values as texts.
pub type Options = BTreeMap<String, Option<Secret>>;

impl PartialSchema for Airflow {
    fn schema() -> RefOr<Schema> {
        let is_paused = ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .description(Some("Whether a DAG is paused when it first appears."))
            .default(Some(false.into()));
        let kinds = [Type::String, Type::Number, Type::Boolean, Type::Null];
        let value = ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds));
        let section = ObjectBuilder::new().additional_properties(Some(Schema::from(value)));
        let description = "Airflow's own configuration: beside `dags_are_paused_at_creation`, options as in `airflow.cfg`, \
                           `{section: {option: value}}`. Answers have texts. Options that Airflow considers sensitive, \
                           and those of providers, are kept as a Modal Secret: answers have `null` for each, and in an \
                           update `null` leaves a value as it is.";
        ObjectBuilder::new()
            .description(Some(description))
            .property("dags_are_paused_at_creation", is_paused)
            .additional_properties(Some(Schema::from(section)))
            .into()
    }
}

impl ToSchema for Airflow {}

impl<'de> Deserialize<'de> for Airflow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AirflowVisitor)
    }
}

/// Reads what serde's `flatten` would, with the places of faults, and with words for what stands in no section.
struct AirflowVisitor;

impl<'de> Visitor<'de> for AirflowVisitor {
    type Value = Airflow;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("sections of airflow.cfg")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Airflow, A::Error> {
        let mut airflow = Airflow::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "dags_are_paused_at_creation" {
                airflow.dags_are_paused_at_creation = map.next_value()?;
                continue;
            }
            let Entry::Section(options) = map.next_value()? else {
                return Err(de::Error::custom(format_args!("`{key}` {}", airflow_options::without_section(&key))));
            };
            airflow.options.insert(key, options);
        }
        Ok(airflow)
    }
}

/// What stands under a key of the section `airflow`.
enum Entry {
    Value(Option<Secret>),
    Section(Options),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number or a boolean; JSON is written as text")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Entry, E> {
        // As in airflow.cfg.
        self.visit_string(if value { "True" } else { "False" }.to_owned())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Entry, E> {
        self.visit_string(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Entry, E> {
        self.visit_string(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Entry, E> {
        self.visit_string(value.to_string())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Entry, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Entry, E> {
        Ok(Entry::Value(Some(Secret::new(value))))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Entry, E> {
        Ok(Entry::Value(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut options = Options::new();
        while let Some(option) = map.next_key::<String>()? {
            match map.next_value()? {
                Entry::Value(value) => options.insert(option, value),
                Entry::Section(_) => {
                    return Err(de::Error::custom(format_args!("the value of `{option}` must be JSON as text")));
                }
            };
        }
        Ok(Entry::Section(options))
    }
}

/// A variable of the environment's Secret, whose value may be known to Modal alone.
pub struct SecretVariable<'a> {
    pub name: String,
    /// Where it is in the configuration.
    pub location: String,
    pub value: Option<&'a Secret>,
}

const NO_VALUE: &str = "has no value; an empty one is written \"\"";

/// What an environment was like before a configuration is applied to it: secrets that it had need not be said again.
#[derive(Clone, Copy, Debug)]
pub enum PreviousConfig<'a> {
    /// It is a new one.
    Nothing,
    Known(&'a Config),
    /// Only the daemon knows.
    Unknown,
}

impl Config {
    /// Seconds in a day, the longest interval and the longest life of a Modal Function call.
    const DAY: u32 = 86_400;
    const MAX_PARALLELISM: u32 = 1000;
    /// It is in a variable of each process; the authorities of one provider's region take a quarter of this.
    const MAX_CERTIFICATE_BYTES: usize = 32 << 10;

    /// Checks what the types cannot say, for an environment that was so before. Each fault names its key.
    ///
    /// # Errors
    /// All faults that were found.
    pub fn validate(&self, before: PreviousConfig<'_>) -> Result<(), Vec<Fault>> {
        let mut faults = Vec::new();
        let mut range = |key: &str, value: u32, max: u32| {
            if !(1..=max).contains(&value) {
                faults.push(Fault::new(key, format!("must be a whole number from 1 to {max}, not {value}")));
            }
        };
        range("scheduler.interval_seconds", self.scheduler.interval_seconds, Self::DAY);
        range("executor.parallelism", self.executor.parallelism, Self::MAX_PARALLELISM);
        range("executor.task_timeout", self.executor.task_timeout, Self::DAY);
        faults.extend(self.modal_fault());
        faults.extend(self.database_fault());
        faults.extend(self.root_certificate_fault());
        faults.extend(self.env.keys().filter_map(|name| env_fault(name)));
        faults.extend(self.airflow.faults());
        faults.extend(self.missing_secrets(before));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Secrets that are neither here nor where they were before.
    fn missing_secrets(&self, before: PreviousConfig<'_>) -> Vec<Fault> {
        let (is_kept, has_database): (&dyn Fn(&str) -> bool, bool) = match before {
            PreviousConfig::Nothing => (&|_| false, false),
            PreviousConfig::Known(before) => (
                &|name| before.secret_variables().any(|kept| kept.name == name),
                before.database.kind == DatabaseKind::Postgres,
            ),
            PreviousConfig::Unknown => (&|_| true, true),
        };
        let without_value =
            self.secret_variables().filter(|variable| variable.value.is_none() && !is_kept(&variable.name));
        let mut faults: Vec<_> = without_value.map(|variable| Fault::new(variable.location, NO_VALUE)).collect();
        if self.database.kind == DatabaseKind::Postgres && self.secret_connection_string().is_none() && !has_database {
            let message = "is required with `database.type: postgres`, such as \"postgresql://user:pass@host:5432/db\"";
            faults.push(Fault::new("database.connection_string", message));
        }
        faults
    }

    fn modal_fault(&self) -> Option<Fault> {
        let name = &self.modal.environment;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = name.len() <= 64 && name.chars().all(allowed);
        let message = "is not a valid name of a Modal environment: use letters, digits, '-', '_' and '.'";
        (!is_name).then(|| Fault::new("modal.environment", message))
    }

    fn database_fault(&self) -> Option<Fault> {
        const KEY: &str = "database.connection_string";
        let message = match (self.database.kind, self.secret_connection_string()) {
            (_, None) => return None,
            (DatabaseKind::Sqlite, Some(_)) => "only goes with `database.type: postgres`",
            (DatabaseKind::Postgres, Some(text)) if !is_postgres_url(text.expose()) => {
                "must be a URL of the form postgresql://user:pass@host:5432/db, with special characters of the \
                 password in percent-encoding, such as %40 for @"
            }
            (DatabaseKind::Postgres, Some(_)) => return None,
        };
        Some(Fault::new(KEY, message))
    }

    fn root_certificate_fault(&self) -> Option<Fault> {
        let pem = self.database.root_certificate.as_deref()?;
        let has_file = self.secret_connection_string().is_some_and(|text| text.expose().contains("sslrootcert="));
        let message = if self.database.kind == DatabaseKind::Sqlite {
            "only goes with `database.type: postgres`"
        } else if !pem.contains("-----BEGIN CERTIFICATE-----") {
            "must be certificates in PEM, beginning with -----BEGIN CERTIFICATE-----; a file's content can be put in \
             from a variable, such as ${ROOT_CERTIFICATE}"
        } else if pem.contains("PRIVATE KEY-----") {
            "holds a private key, which must stay where it is: only certificates belong here"
        } else if pem.len() > Self::MAX_CERTIFICATE_BYTES {
            "is larger than 32 KiB: name only the certificates of your server's region or authority"
        } else if has_file {
            "takes the place of `sslrootcert` in the connection string: leave that out"
        } else {
            return None;
        };
        Some(Fault::new("database.root_certificate", message))
    }

    /// The connection string, wherever it was written.
    pub fn secret_connection_string(&self) -> Option<&Secret> {
        self.database.connection_string.as_ref().or(self.connection_string.as_ref())
    }

    /// What `env` and `airflow` have the environment's Secret hold.
    pub fn secret_variables(&self) -> impl Iterator<Item = SecretVariable<'_>> {
        let env = self.env.iter().map(|(name, value)| SecretVariable {
            name: name.clone(),
            location: format!("env.{name}"),
            value: value.as_ref(),
        });
        let options = self.airflow.iter().filter(|(section, option, _)| airflow_options::is_secret(section, option));
        env.chain(options.map(|(section, option, value)| SecretVariable {
            name: airflow_options::variable(section, option),
            location: format!("airflow.{section}.{option}"),
            value: value.as_ref(),
        }))
    }

    /// The same configuration without its secrets: what the registry keeps and the API answers.
    pub fn without_secrets(&self) -> Self {
        let mut config = self.clone();
        config.connection_string = None;
        config.database.connection_string = None;
        config.env.values_mut().for_each(|value| *value = None);
        for (section, options) in &mut config.airflow.options {
            let secret = options.iter_mut().filter(|(option, _)| airflow_options::is_secret(section, option));
            secret.for_each(|(_, value)| *value = None);
        }
        config
    }
}

impl Airflow {
    /// All options: section, name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Option<Secret>)> {
        self.options.iter().flat_map(|(section, options)| {
            options.iter().map(move |(option, value)| (section.as_str(), option.as_str(), value))
        })
    }

    fn faults(&self) -> impl Iterator<Item = Fault> {
        self.iter().filter_map(|(section, option, value)| {
            let missing =
                || (value.is_none() && !airflow_options::is_secret(section, option)).then(|| NO_VALUE.to_owned());
            let message =
                airflow_options::fault(section, option, value.as_ref().map(Secret::expose)).or_else(missing)?;
            Some(Fault::new(format!("airflow.{section}.{option}"), message))
        })
    }
}

/// Why a variable of this name cannot be set.
fn env_fault(name: &str) -> Option<Fault> {
    let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let message = if !is_name {
        "is not a valid name of an environment variable: use letters, digits and '_'"
    } else if name.starts_with("AIRFLOW__") || name.starts_with("_AIRFLOW_") || name == "AIRFLOW_HOME" {
        "is reserved: Airflow's options are set in the section `airflow`, as in `airflow: {core: {max_map_length: 4096}}`"
    } else if name.starts_with("AIRFLOW_SERVERLESS_") || name.starts_with("MODAL_") {
        "is reserved for what runs Airflow"
    } else if name == "PATH" || name == "HOME" || name.starts_with("PYTHON") || name.starts_with("LD_") {
        "is reserved: the interpreter of the scheduler and the tasks depends on it"
    } else {
        return None;
    };
    Some(Fault::new(format!("env.{name}"), message))
}

/// Whether the text reads as a connection string and cannot be misread: a special character in a password would end it.
fn is_postgres_url(text: &str) -> bool {
    let Some(rest) = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (credentials, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let database = path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let port = server.rsplit_once(':').filter(|_| !server.ends_with(']')).map_or("1", |(_, port)| port);
    let is_plain = !rest.contains('#') && !path.contains('@') && !database.contains(['/', ':']);
    is_plain
        && !credentials.contains('@')
        && credentials.matches(':').count() <= 1
        && !rest.is_empty()
        && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_errors_name_the_key() {
        let mut config = Config::default();
        config.scheduler.interval_seconds = 0;
        config.database.kind = DatabaseKind::Postgres;
        let faults = config.validate(PreviousConfig::Nothing).expect_err("two faults");
        let keys: Vec<_> = faults.iter().map(|fault| fault.location.as_str()).collect();
        assert_eq!(keys, ["scheduler.interval_seconds", "database.connection_string"]);
    }

    #[test]
    fn omitted_secrets_are_refused_if_known_to_be_unset() {
        let database = Database { kind: DatabaseKind::Postgres, ..Database::default() };
        let env = BTreeMap::from([("API_TOKEN".to_owned(), None)]);
        let config = Config { database, env, ..Config::default() };
        let other = Config::default();
        let missing = |before: PreviousConfig<'_>| config.validate(before).err().unwrap_or_default().len();
        assert_eq!([missing(PreviousConfig::Nothing), missing(PreviousConfig::Known(&other))], [2, 2]);
        assert_eq!([missing(PreviousConfig::Known(&config)), missing(PreviousConfig::Unknown)], [0, 0]);
    }

    #[test]
    fn airflow_options_are_strings_and_their_secrets_are_redacted() {
        let read = |text: &str| serde_json::from_str::<Airflow>(text);
        let airflow = read(
            r#"{"core": {"max_map_length": 4096, "rerun_with_latest_version": true}, "sensors": {"default_timeout": 0.5},
                "secrets": {"backend": "b", "backend_kwargs": "{}"}, "dags_are_paused_at_creation": true}"#,
        )
        .expect("valid");
        let config = Config { airflow, ..Config::default() };
        assert_eq!(config.validate(PreviousConfig::Nothing), Ok(()));
        let kept = config.without_secrets();
        let answer = serde_json::json!(kept.airflow);
        let expected = serde_json::json!({
            "core": {"max_map_length": "4096", "rerun_with_latest_version": "True"}, "sensors": {"default_timeout": "0.5"},
            "secrets": {"backend": "b", "backend_kwargs": null}, "dags_are_paused_at_creation": true,
        });
        assert_eq!(answer, expected);
        assert_eq!(read(&answer.to_string()).expect("what is answered"), kept.airflow);
        let faults = |config: &Config, before: PreviousConfig<'_>| config.validate(before).err().unwrap_or_default();
        assert_eq!(faults(&kept, PreviousConfig::Known(&config)), []);
        assert_eq!(faults(&kept, PreviousConfig::Nothing)[0].location, "airflow.secrets.backend_kwargs");
        let without =
            Config { airflow: read(r#"{"core": {"max_map_length": null}}"#).expect("read"), ..Config::default() };
        assert_eq!(faults(&without, PreviousConfig::Unknown)[0].message, NO_VALUE);
        for (text, part) in [
            (r#"{"max_map_length": 1}"#, "write `core: {max_map_length: …}`"),
            (r#"{"core": {"max_map_length": [1]}}"#, "JSON is written as text"),
            (r#"{"secrets": {"backend_kwargs": {"a": 1}}}"#, "JSON as text"),
            (r#"{"dags_are_paused_at_creation": 1}"#, "boolean"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn ambiguous_connection_strings_are_refused() {
        for good in [
            "postgresql://user:pass@host:5432/db",
            "postgres://u:p%40%2F@[::1]:5432/db?sslmode=require",
            "postgresql://host/db",
            "postgresql:///db?host=/var/run/postgresql",
            "postgresql://u@[::1]/db",
        ] {
            assert!(is_postgres_url(good), "{good}");
        }
        for bad in [
            "",
            "postgresql://",
            "mysql://u:p@h/d",
            "postgresql://u:p@ss@h/d",
            "postgresql://u:p/ss@h/d",
            "postgresql://u:p?ss@h/d",
            "postgresql://u:p#ss@h/d",
            "postgresql://u:p:ss@h/d",
            "postgresql://u:p@h:port/d",
        ] {
            assert!(!is_postgres_url(bad), "{bad}");
        }
    }

    #[test]
    fn invalid_root_certificates_are_refused() {
        let fault = |pem: &str, options: &str| {
            let string = format!("postgresql://u:p@h/d{options}");
            let database = Database {
                kind: DatabaseKind::Postgres,
                connection_string: Some(Secret::new(string)),
                root_certificate: Some(pem.to_owned()),
            };
            Config { database, ..Config::default() }
                .validate(PreviousConfig::Nothing)
                .err()
                .map(|faults| faults[0].message.clone())
        };
        let pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        assert_eq!(fault(pem, ""), None);
        assert_eq!(fault(pem, "?sslmode=verify-ca"), None);
        for (pem, options, part) in [
            ("/etc/ssl/root.pem", "", "PEM"),
            (&format!("{pem}-----BEGIN PRIVATE KEY-----"), "", "private key"),
            (&pem.repeat(2000), "", "32 KiB"),
            (pem, "?sslrootcert=/root.pem", "leave that out"),
        ] {
            assert!(fault(pem, options).is_some_and(|message| message.contains(part)), "{part}");
        }
    }

    #[test]
    fn reserved_variables_are_refused() {
        for good in ["AIRFLOW_VAR_X", "AIRFLOW_CONN_Y", "API_TOKEN", "_x"] {
            assert_eq!(env_fault(good), None, "{good}");
        }
        for bad in ["", "1A", "A B", "A=B", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_SERVERLESS_SETTINGS", "PYTHONPATH"] {
            assert!(env_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_redacted_in_debug_and_serialized_output() {
        let config = Config {
            connection_string: Some(Secret::new("postgresql://u:hunter2@h/d")),
            env: BTreeMap::from([("API_TOKEN".to_owned(), Some(Secret::new("hunter2")))]),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
        let kept = serde_json::to_string(&config.without_secrets()).expect("serialises");
        assert!(!kept.contains("hunter2") && kept.contains("API_TOKEN"));
    }
}
