//! Calls of deployed Functions.

use std::time::Duration;

use modal_proto::{
    BlobGetRequest, DataFormat, FunctionCallInvocationType, FunctionCallType, FunctionGetOutputsRequest,
    FunctionGetRequest, FunctionInput, FunctionMapRequest, FunctionPutInputsItem,
    function_input::ArgsOneof,
    generic_result::{DataOneof, GenericStatus},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    pickle,
    wire::{Client, rpc},
};

/// The arguments of a call without any. (`()` would not do: serde makes it Python's `None`.)
pub const NO_ARGUMENTS: [u8; 0] = [];

/// How long one request waits for a result.
const ONE_REQUEST: Duration = Duration::from_secs(20);

/// A deployed Function.
#[derive(Clone)]
pub struct Function {
    client: Client,
    id: String,
    name: String,
}

/// A call that was accepted; Modal keeps its result for days.
#[derive(Clone)]
pub struct FunctionCall {
    client: Client,
    id: String,
    function: String,
}

/// The state of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    Finished(T),
    Pending,
}

impl Client {
    /// The Function `name` of a deployed App.
    ///
    /// # Errors
    /// [`Error::Rpc`], with the code `NOT_FOUND` if the App or the Function does not exist.
    pub async fn function(&self, app: &str, name: &str) -> Result<Function> {
        let request = FunctionGetRequest {
            app_name: app.to_owned(),
            object_tag: name.to_owned(),
            environment_name: self.environment_name(),
            ..Default::default()
        };
        let id = rpc!(self, function_get, request)?.function_id;
        Ok(Function { client: self.clone(), id, name: name.to_owned() })
    }
}

impl Function {
    /// Starts a call with positional arguments of plain types: a tuple, or [`NO_ARGUMENTS`].
    ///
    /// # Errors
    /// [`Error::Pickle`] if the arguments have no Python counterpart, [`Error::Rpc`] if the server cannot be reached or
    /// refuses the call.
    pub async fn spawn<A: Serialize>(&self, arguments: A) -> Result<FunctionCall> {
        let no_keywords = std::collections::BTreeMap::<String, ()>::new();
        let args = pickle::dumps(&self.name, &(arguments, no_keywords))?;
        let input = FunctionInput {
            args_oneof: Some(ArgsOneof::Args(args.into())),
            data_format: DataFormat::Pickle.into(),
            ..Default::default()
        };
        let request = FunctionMapRequest {
            function_id: self.id.clone(),
            function_call_type: FunctionCallType::Unary.into(),
            function_call_invocation_type: FunctionCallInvocationType::Async.into(),
            pipelined_inputs: vec![FunctionPutInputsItem { input: Some(input), ..Default::default() }],
            ..Default::default()
        };
        let id = rpc!(self.client, function_map, request)?.function_call_id;
        Ok(FunctionCall { client: self.client.clone(), id, function: self.name.clone() })
    }
}

impl FunctionCall {
    /// `fc-…`
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the result for as long as that takes, but at most `limit`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn wait<T: DeserializeOwned>(&self, limit: Duration) -> Result<Outcome<T>> {
        let finished = async {
            loop {
                if let Outcome::Finished(result) = self.get(ONE_REQUEST).await? {
                    return Ok(Outcome::Finished(result));
                }
            }
        };
        tokio::time::timeout(limit, finished).await.unwrap_or(Ok(Outcome::Pending))
    }

    /// Waits for the result, at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Raised`] if the Function raised an exception or timed out, [`Error::Result`] if its result is empty,
    /// [`Error::Unpickle`] if the result is not a `T`, [`Error::Rpc`] and [`Error::Download`] if it cannot be fetched.
    pub async fn get<T: DeserializeOwned>(&self, timeout: Duration) -> Result<Outcome<T>> {
        let request = FunctionGetOutputsRequest {
            function_call_id: self.id.clone(),
            max_values: 1,
            timeout: timeout.as_secs_f32(),
            last_entry_id: "0-0".to_owned(),
            ..Default::default()
        };
        let outputs = rpc!(self.client, function_get_outputs, request)?.outputs;
        let Some(result) = outputs.into_iter().next().and_then(|output| output.result) else {
            return Ok(Outcome::Pending);
        };
        let function = self.function.clone();
        match (result.status(), result.data_oneof) {
            (GenericStatus::Success, Some(DataOneof::Data(data))) => {
                pickle::loads(&function, &data).map(Outcome::Finished)
            }
            (GenericStatus::Success, Some(DataOneof::DataBlobId(blob_id))) => {
                let url = rpc!(self.client, blob_get, BlobGetRequest { blob_id })?.download_url;
                let mut result = Vec::new();
                self.client.download("a result", &url, &mut result).await?;
                pickle::loads(&function, &result).map(Outcome::Finished)
            }
            (GenericStatus::Success, None) => Err(Error::Result { function, message: "it is empty".into() }),
            (GenericStatus::Timeout, _) => Err(Error::Raised { function, message: "it took too long".into() }),
            (_, _) => Err(Error::Raised { function, message: result.exception }),
        }
    }
}
