//! The table of all RPCs, with the function that implements each.

use std::sync::Arc;

use modal_proto::{self as pb, modal_client_server::ModalClient};
use tonic::{Request, Response, Status, async_trait};

use super::{
    ResponseStream, app, blob, call, calling_task, container, data, dict, function, image, logs, mount, proxy_token,
    queue, request_key, secret, session, volume, volume::Listing,
};
use crate::shared::Shared;

/// Modal's control plane, as far as it is implemented here; every other method fails with UNIMPLEMENTED and its name.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// A response that cannot fail.
fn ok<T>(response: T) -> Result<T, Status> {
    Ok(response)
}

type RpcResult<T> = Result<Response<T>, Status>;

/// Lists methods as `name: Request => Response, |shared, request| call`. Those that must not run again when a client
/// repeats a request get the request's key as well; those that only containers may call get the id of the calling task.
macro_rules! service {
    (
        anyone {
            $($name:ident: $in:ty => $out:ty, |$shared:pat_param, $request:pat_param| $call:expr;)*
        }
        once {
            $(
                $once_name:ident: $once_in:ty => $once_out:ty,
                    |$once_shared:pat_param, $key:pat_param, $once_request:pat_param| $once_call:expr;
            )*
        }
        containers {
            $(
                $task_name:ident: $task_in:ty => $task_out:ty,
                    |$task_shared:pat_param, $task:pat_param, $task_request:pat_param| $task_call:expr;
            )*
        }
        streams {
            $(
                $stream_name:ident: $stream_in:ty => $item:ty,
                    |$stream_shared:pat_param, $stream_request:pat_param| $stream_call:expr;
            )*
        }
    ) => {
        #[async_trait]
        impl ModalClient for Service {
            $(
                async fn $name(&self, request: Request<$in>) -> RpcResult<$out> {
                    let ($shared, $request) = (&self.shared, request.into_inner());
                    Ok(Response::new($call?))
                }
            )*
            $(
                async fn $once_name(&self, request: Request<$once_in>) -> RpcResult<$once_out> {
                    let key = request_key(&request);
                    let $key = key.as_deref();
                    let ($once_shared, $once_request) = (&self.shared, request.into_inner());
                    Ok(Response::new($once_call?))
                }
            )*
            $(
                async fn $task_name(&self, request: Request<$task_in>) -> RpcResult<$task_out> {
                    let $task = &calling_task(&request)?;
                    let ($task_shared, $task_request) = (&self.shared, request.into_inner());
                    Ok(Response::new($task_call?))
                }
            )*
            $(
                async fn $stream_name(&self, request: Request<$stream_in>) -> RpcResult<ResponseStream<$item>> {
                    let ($stream_shared, $stream_request) = (&self.shared, request.into_inner());
                    Ok(Response::new($stream_call?))
                }
            )*
        }
    };
}

service! {
    anyone {
        client_hello: () => pb::ClientHelloResponse, |_, ()| ok(session::hello());
        workspace_name_lookup: () => pb::WorkspaceNameLookupResponse, |_, ()| ok(session::workspace());
        token_info_get: pb::TokenInfoGetRequest => pb::TokenInfoGetResponse, |_, _| ok(session::token_info());
        environment_get_or_create: pb::EnvironmentGetOrCreateRequest => pb::EnvironmentGetOrCreateResponse,
            |s, r| session::get_environment(s, &r).await;
        environment_create: pb::EnvironmentCreateRequest => (), |s, r| session::create_environment(s, &r).await;
        environment_update: pb::EnvironmentUpdateRequest => pb::EnvironmentListItem,
            |s, r| session::update_environment(s, &r).await;
        environment_delete: pb::EnvironmentDeleteRequest => (), |s, r| session::delete_environment(s, &r).await;
        environment_list: () => pb::EnvironmentListResponse, |s, ()| ok(session::list_environments(s));

        app_create: pb::AppCreateRequest => pb::AppCreateResponse, |s, r| app::create(s, r).await;
        app_get_or_create: pb::AppGetOrCreateRequest => pb::AppGetOrCreateResponse, |s, r| app::get_or_create(s, r).await;
        app_get_by_deployment_name: pb::AppGetByDeploymentNameRequest => pb::AppGetByDeploymentNameResponse,
            |s, r| ok(app::get_by_deployment_name(s, &r));
        app_list: pb::AppListRequest => pb::AppListResponse, |s, r| ok(app::list(s, &r));
        app_publish: pb::AppPublishRequest => pb::AppPublishResponse, |s, r| app::publish(s, r).await;
        app_get_layout: pb::AppGetLayoutRequest => pb::AppGetLayoutResponse, |s, r| app::layout(s, &r);
        app_heartbeat: pb::AppHeartbeatRequest => (), |s, r| app::heartbeat(s, r).await;
        app_client_disconnect: pb::AppClientDisconnectRequest => (), |s, r| app::disconnect(s, r).await;
        app_get_lifecycle: pb::AppGetLifecycleRequest => pb::AppGetLifecycleResponse, |s, r| app::lifecycle_of(s, &r);
        app_get_info: pb::AppGetInfoRequest => pb::AppGetInfoResponse, |s, r| app::info(s, &r);
        app_set_tags: pb::AppSetTagsRequest => (), |s, r| app::set_tags(s, r).await;
        app_get_tags: pb::AppGetTagsRequest => pb::AppGetTagsResponse, |s, r| app::get_tags(s, &r);
        app_deployment_history: pb::AppDeploymentHistoryRequest => pb::AppDeploymentHistoryResponse,
            |s, r| app::history(s, &r);
        app_rollback: pb::AppRollbackRequest => pb::AppRollbackResponse, |s, r| app::roll_back(s, &r).await;
        app_rollover: pb::AppRolloverRequest => pb::AppRolloverResponse, |s, r| app::roll_over(s, &r).await;
        app_stop: pb::AppStopRequest => (), |s, r| app::stop(s, r).await;
        app_fetch_logs: pb::AppFetchLogsRequest => pb::AppFetchLogsResponse, |s, r| logs::fetch(s, r).await;
        app_count_logs: pb::AppCountLogsRequest => pb::AppCountLogsResponse, |s, r| logs::count(s, r).await;

        function_precreate: pb::FunctionPrecreateRequest => pb::FunctionPrecreateResponse,
            |s, r| function::precreate(s, r).await;
        function_create: pb::FunctionCreateRequest => pb::FunctionCreateResponse, |s, r| function::create(s, r).await;
        function_get: pb::FunctionGetRequest => pb::FunctionGetResponse, |s, r| function::get(s, &r).await;
        function_get_by_id: pb::FunctionGetByIdRequest => pb::FunctionGetByIdResponse, |s, r| function::get_by_id(s, &r);
        function_bind_params: pb::FunctionBindParamsRequest => pb::FunctionBindParamsResponse,
            |s, r| function::bind_params(s, r).await;
        function_update_scheduling_params: pb::FunctionUpdateSchedulingParamsRequest => pb::FunctionUpdateSchedulingParamsResponse,
            |s, r| function::update_autoscaler(s, r).await;
        function_get_scheduling_params: pb::FunctionGetSchedulingParamsRequest => pb::FunctionGetSchedulingParamsResponse,
            |s, r| function::autoscaler(s, &r);
        function_get_current_stats: pb::FunctionGetCurrentStatsRequest => pb::FunctionStats,
            |s, r| s.read(|state| state.function_stats(&r.function_id));
        class_create: pb::ClassCreateRequest => pb::ClassCreateResponse, |s, r| function::create_class(s, r).await;
        class_get: pb::ClassGetRequest => pb::ClassGetResponse, |s, r| function::get_class(s, &r);

        function_put_inputs: pb::FunctionPutInputsRequest => pb::FunctionPutInputsResponse,
            |s, r| call::put_inputs(s, r).await;
        function_finish_inputs: pb::FunctionFinishInputsRequest => (), |s, r| call::finish_inputs(s, &r);
        function_get_outputs: pb::FunctionGetOutputsRequest => pb::FunctionGetOutputsResponse,
            |s, r| call::get_outputs(s, r).await;
        function_call_cancel: pb::FunctionCallCancelRequest => (), |s, r| call::cancel(s, r).await;
        function_call_from_id: pb::FunctionCallFromIdRequest => pb::FunctionCallFromIdResponse, |s, r| call::from_id(s, &r);

        function_get_call_graph: pb::FunctionGetCallGraphRequest => pb::FunctionGetCallGraphResponse,
            |s, r| call::graph(s, &r);

        webhook_token_create: pb::WebhookTokenCreateRequest => pb::TokenCreateResponse, |s, r| proxy_token::create(s, r).await;
        webhook_token_update: pb::WebhookTokenUpdateRequest => pb::WebhookToken, |s, r| proxy_token::update(s, r).await;
        webhook_token_delete: pb::TokenDeleteRequest => (), |s, r| proxy_token::delete(s, r).await;
        webhook_token_list: () => pb::WebhookTokenListResponse, |s, ()| ok(proxy_token::list(s));
        webhook_token_list_for_environment: pb::WebhookTokenListForEnvironmentRequest => pb::WebhookTokenListResponse,
            |s, _| ok(proxy_token::list(s));

        image_get_or_create: pb::ImageGetOrCreateRequest => pb::ImageGetOrCreateResponse,
            |s, r| image::get_or_create(s, r).await;
        image_from_id: pb::ImageFromIdRequest => pb::ImageFromIdResponse, |s, r| image::from_id(s, r);
        mount_get_or_create: pb::MountGetOrCreateRequest => pb::MountGetOrCreateResponse,
            |s, r| mount::get_or_create(s, r).await;
        mount_batched_check_existence: pb::MountBatchedCheckExistenceRequest => pb::MountBatchedCheckExistenceResponse,
            |s, r| mount::check_existence(s, r);
        mount_put_file: pb::MountPutFileRequest => pb::MountPutFileResponse, |s, r| mount::put_file(s, r).await;
        secret_get_or_create: pb::SecretGetOrCreateRequest => pb::SecretGetOrCreateResponse,
            |s, r| secret::get_or_create(s, r).await;
        secret_list: pb::SecretListRequest => pb::SecretListResponse, |s, r| ok(secret::list(s, &r));
        secret_delete: pb::SecretDeleteRequest => (), |s, r| secret::delete(s, r).await;
        secret_get_info: pb::SecretGetInfoRequest => pb::SecretGetInfoResponse, |s, r| secret::info(s, &r);
        secret_update: pb::SecretUpdateRequest => (), |s, r| secret::update(s, r).await;

        blob_create: pb::BlobCreateRequest => pb::BlobCreateResponse, |s, r| blob::create(s, r).await;
        blob_get: pb::BlobGetRequest => pb::BlobGetResponse, |s, r| blob::get(s, &r);

        dict_get_or_create: pb::DictGetOrCreateRequest => pb::DictGetOrCreateResponse,
            |s, r| dict::get_or_create(s, r).await;
        dict_get_by_id: pb::DictGetByIdRequest => pb::DictGetByIdResponse, |s, r| dict::get_by_id(s, &r);
        dict_heartbeat: pb::DictHeartbeatRequest => (), |s, r| dict::heartbeat(s, &r);
        dict_list: pb::DictListRequest => pb::DictListResponse, |s, r| ok(dict::list(s, &r));
        dict_delete: pb::DictDeleteRequest => (), |s, r| dict::delete(s, r).await;
        dict_get: pb::DictGetRequest => pb::DictGetResponse, |s, r| dict::get(s, &r);
        dict_contains: pb::DictContainsRequest => pb::DictContainsResponse, |s, r| dict::contains(s, &r);
        dict_len: pb::DictLenRequest => pb::DictLenResponse, |s, r| dict::len(s, &r);
        dict_clear: pb::DictClearRequest => (), |s, r| dict::clear(s, r).await;

        queue_get_or_create: pb::QueueGetOrCreateRequest => pb::QueueGetOrCreateResponse,
            |s, r| queue::get_or_create(s, r).await;
        queue_get_by_id: pb::QueueGetByIdRequest => pb::QueueGetByIdResponse, |s, r| queue::get_by_id(s, &r);
        queue_heartbeat: pb::QueueHeartbeatRequest => (), |s, r| queue::heartbeat(s, &r);
        queue_list: pb::QueueListRequest => pb::QueueListResponse, |s, r| ok(queue::list(s, &r));
        queue_delete: pb::QueueDeleteRequest => (), |s, r| queue::delete(s, r).await;
        queue_next_items: pb::QueueNextItemsRequest => pb::QueueNextItemsResponse, |s, r| queue::next_items(s, r).await;
        queue_len: pb::QueueLenRequest => pb::QueueLenResponse, |s, r| queue::len(s, &r);
        queue_clear: pb::QueueClearRequest => (), |s, r| queue::clear(s, r).await;

        volume_get_or_create: pb::VolumeGetOrCreateRequest => pb::VolumeGetOrCreateResponse,
            |s, r| volume::get_or_create(s, r).await;
        volume_get_by_id: pb::VolumeGetByIdRequest => pb::VolumeGetByIdResponse, |s, r| volume::get_by_id(s, &r);
        volume_heartbeat: pb::VolumeHeartbeatRequest => (), |s, r| volume::check(s, &r.volume_id);
        volume_list: pb::VolumeListRequest => pb::VolumeListResponse, |s, r| ok(volume::list(s, &r));
        volume_delete: pb::VolumeDeleteRequest => (), |s, r| volume::delete(s, r).await;
        volume_get_file2: pb::VolumeGetFile2Request => pb::VolumeGetFile2Response, |s, r| volume::get_file(s, r).await;
        volume_put_files: pb::VolumePutFilesRequest => (), |s, r| volume::put_files(s, r).await;
        volume_put_files2: pb::VolumePutFiles2Request => pb::VolumePutFiles2Response,
            |s, r| volume::put_files2(s, r).await;
        volume_copy_files: pb::VolumeCopyFilesRequest => (),
            |s, r| volume::copy_files(s, &r.volume_id, r.src_paths, r.dst_path, r.recursive).await;
        volume_copy_files2: pb::VolumeCopyFiles2Request => (),
            |s, r| volume::copy_files(s, &r.volume_id, r.src_paths, r.dst_path, r.recursive).await;
        volume_rename: pb::VolumeRenameRequest => (), |s, r| volume::rename(s, r).await;
        volume_remove_file: pb::VolumeRemoveFileRequest => (),
            |s, r| volume::remove_file(s, &r.volume_id, r.path, r.recursive).await;
        volume_remove_file2: pb::VolumeRemoveFile2Request => (),
            |s, r| volume::remove_file(s, &r.volume_id, r.path, r.recursive).await;

        task_list: pb::TaskListRequest => pb::TaskListResponse, |s, r| ok(container::list(s, &r));
        task_get_info: pb::TaskGetInfoRequest => pb::TaskGetInfoResponse,
            |s, r| s.read(|state| state.task_info(&r.task_id));
        container_stop: pb::ContainerStopRequest => pb::ContainerStopResponse, |s, r| container::stop(s, r).await;
    }

    once {
        function_map: pb::FunctionMapRequest => pb::FunctionMapResponse, |s, key, r| call::map(s, key, r).await;
        dict_update: pb::DictUpdateRequest => pb::DictUpdateResponse, |s, key, r| dict::update(s, key, r).await;
        dict_pop: pb::DictPopRequest => pb::DictPopResponse, |s, key, r| dict::pop(s, key, r).await;
        queue_put: pb::QueuePutRequest => (), |s, key, r| queue::put(s, key, r).await;
        queue_get: pb::QueueGetRequest => pb::QueueGetResponse, |s, key, r| queue::get(s, key, r).await;
    }

    containers {
        container_hello: () => (), |s, task, ()| container::hello(s, task);
        container_server_lifecycle_ready: pb::ContainerServerLifecycleReadyRequest => (),
            |s, task, _| container::server_ready(s, task);
        container_heartbeat: pb::ContainerHeartbeatRequest => pb::ContainerHeartbeatResponse,
            |s, task, _| container::heartbeat(s, task).await;
        function_get_inputs: pb::FunctionGetInputsRequest => pb::FunctionGetInputsResponse,
            |s, task, _| container::get_inputs(s, task).await;
        function_put_outputs: pb::FunctionPutOutputsRequest => (), |s, task, r| container::put_outputs(s, task, r).await;
        function_call_put_data_out: pb::FunctionCallPutDataRequest => (), |s, task, r| data::put_out(s, task, r).await;
        function_get_dynamic_concurrency: pb::FunctionGetDynamicConcurrencyRequest => pb::FunctionGetDynamicConcurrencyResponse,
            |s, task, _| container::dynamic_concurrency(s, task);
        volume_commit: pb::VolumeCommitRequest => pb::VolumeCommitResponse, |s, task, r| volume::commit(s, task, &r).await;
        volume_reload: pb::VolumeReloadRequest => (), |s, task, r| volume::reload(s, task, &r).await;
        task_result: pb::TaskResultRequest => (), |s, task, r| container::task_result(s, task, r).await;
    }

    streams {
        app_get_logs: pb::AppGetLogsRequest => pb::TaskLogsBatch, |s, r| logs::follow(s, r);
        dict_contents: pb::DictContentsRequest => pb::DictEntry, |s, r| dict::contents(s, &r);
        function_call_get_data_in: pb::FunctionCallGetDataRequest => pb::DataChunk, |s, r| data::read_in(s, r);
        function_call_get_data_out: pb::FunctionCallGetDataRequest => pb::DataChunk, |s, r| data::read_out(s, r);
        image_join_streaming: pb::ImageJoinStreamingRequest => pb::ImageJoinStreamingResponse,
            |s, r| image::join(s, r);
        volume_list_files: pb::VolumeListFilesRequest => pb::VolumeListFilesResponse, |s, r| {
            let request = Listing { volume_id: r.volume_id, path: r.path, recursive: r.recursive, max_entries: r.max_entries };
            volume::list_files(s, request, |entries| pb::VolumeListFilesResponse { entries }).await
        };
        volume_list_files2: pb::VolumeListFiles2Request => pb::VolumeListFiles2Response, |s, r| {
            let request = Listing { volume_id: r.volume_id, path: r.path, recursive: r.recursive, max_entries: r.max_entries };
            volume::list_files(s, request, |entries| pb::VolumeListFiles2Response { entries }).await
        };
    }
}
