//! Tests of the emulator as a library, without the SDK.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use modal_emulator::{Emulator, Listen, Options, StartError};
use modal_proto as pb;
use modal_proto::modal_client_client::ModalClientClient;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

fn options(data_dir: &Path) -> Options {
    Options { listen: Listen::Tcp(([127, 0, 0, 1], 0).into()), ..Options::new(data_dir) }
}

/// Sends the secret of a server's token.
#[derive(Clone)]
struct Secret(String);

impl Interceptor for Secret {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("x-modal-token-secret", self.0.parse().unwrap());
        Ok(request)
    }
}

async fn client(emulator: &Emulator) -> ModalClientClient<InterceptedService<Channel, Secret>> {
    let channel = Channel::from_shared(emulator.server_url().to_owned()).unwrap().connect().await.unwrap();
    ModalClientClient::with_interceptor(channel, Secret(emulator.token_secret().to_owned()))
}

fn named_dict() -> pb::DictGetOrCreateRequest {
    pb::DictGetOrCreateRequest {
        deployment_name: "d".into(),
        object_creation_type: pb::ObjectCreationType::CreateIfMissing.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_updates_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3u8 {
        let emulator = Emulator::start(options(folder.path())).await.unwrap();
        let mut client = client(&emulator).await;
        let dict_id = client.dict_get_or_create(named_dict()).await.unwrap().into_inner().dict_id;
        for key in 0..round {
            let request = pb::DictGetRequest { dict_id: dict_id.clone(), key: vec![key].into() };
            assert!(client.dict_get(request).await.unwrap().into_inner().found, "round {round}, key {key}");
        }
        let updates = vec![pb::DictEntry { key: vec![round].into(), value: "v".into() }];
        client.dict_update(pb::DictUpdateRequest { dict_id, updates, if_not_exists: true }).await.unwrap();
        emulator.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_server_on_one_data_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Emulator::start(options(folder.path())).await.unwrap();
    let second = Emulator::start(options(folder.path())).await;
    assert!(matches!(second, Err(StartError::InUse(_))));
    first.shutdown().await;
    Emulator::start(options(folder.path())).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_have_a_code_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(options(folder.path())).await.unwrap();
    let mut stranger = ModalClientClient::connect(emulator.server_url().to_owned()).await.unwrap();
    assert_eq!(stranger.client_hello(()).await.unwrap_err().code(), Code::Unauthenticated);
    let mut client = client(&emulator).await;
    let refused = client.container_hello(()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let request = pb::FunctionMapRequest { function_id: "fu-none".into(), ..Default::default() };
    let refused = client.function_map(request).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "Function \"fu-none\" does not exist"));
    emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_waiting_requests() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(options(folder.path())).await.unwrap();
    let mut client = client(&emulator).await;
    let app = pb::AppCreateRequest { app_state: pb::AppState::Ephemeral.into(), ..Default::default() };
    let app_id = client.app_create(app).await.unwrap().into_inner().app_id;
    let request = pb::FunctionPrecreateRequest { app_id, function_name: "f".into(), ..Default::default() };
    let function_id = client.function_precreate(request).await.unwrap().into_inner().function_id;
    let input = pb::FunctionPutInputsItem { input: Some(pb::FunctionInput::default()), ..Default::default() };
    let request = pb::FunctionMapRequest { function_id, pipelined_inputs: vec![input], ..Default::default() };
    let function_call_id = client.function_map(request).await.unwrap().into_inner().function_call_id;
    let request = pb::FunctionGetOutputsRequest { function_call_id, timeout: 55.0, ..Default::default() };
    let waiting = tokio::spawn(async move { client.function_get_outputs(request).await });
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(5), emulator.shutdown()).await;
    assert!(stopped.is_ok());
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unavailable);
}
