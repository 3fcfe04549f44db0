//! Features of the SDK that cannot work here. They are refused by name when they are deployed, because otherwise they
//! would fail in a container, or differ unnoticed.

use modal_proto as pb;

use crate::{
    error::Error,
    state::{Now, next_time},
};

/// Refuses a function that uses such a feature.
pub fn check_function(function: &pb::Function, ignore_gpu: bool, now: Now) -> Result<(), Error> {
    if let Some(schedule) = &function.schedule {
        next_time(schedule, now.wall)?;
    }
    check_gpu(function.resources.as_ref(), ignore_gpu)?;
    let methods = function.method_definitions.values().map(|method| &method.webhook_config);
    for config in methods.chain([&function.webhook_config]).flatten() {
        if let Some(domain) = config.custom_domains.first() {
            let reason = format!("{:?} cannot lead to this machine; leave custom_domains out", domain.name);
            return Err(Error::invalid("custom domain", reason));
        }
    }
    let config = function.http_config.as_ref();
    let is_direct = config.is_some_and(|config| config.lift_and_shift_config.is_some());
    let used = [
        (config.is_some() && !function.is_server, "experimental.http_server", "use app.server"),
        (is_direct, "server of an image's own command", "start the command in a method with modal.enter"),
        (!function.cloud_bucket_mounts.is_empty(), "CloudBucketMount", "use a Volume"),
        (!function.shared_volume_mounts.is_empty(), "NetworkFileSystem", "use a Volume"),
        (function.experimental_group_size > 0, "clustered", "remove it: the function then runs in one container"),
        (function.i6pn_enabled, "i6pn", "containers reach each other on the loopback interface"),
        (function.block_network, "block_network", "remove it: the function then uses this machine's network"),
        (function.untrusted, "restrict_modal_access", "remove it: the function can then use Local Modal"),
        (!function.proxy_id().is_empty(), "proxy", "remove it: the function then uses this machine's address"),
        (function.is_sessioned, "sessions", "use functions or a class"),
    ];
    refuse(&used)
}

/// Refuses options of a class or function that use such a feature.
pub fn check_options(options: &pb::FunctionOptions, ignore_gpu: bool) -> Result<(), Error> {
    check_gpu(options.resources.as_ref(), ignore_gpu)?;
    refuse(&[(!options.cloud_bucket_mounts.is_empty(), "CloudBucketMount", "use a Volume")])
}

/// Refuses the first feature that is used. Each has a name and an alternative.
fn refuse(features: &[(bool, &'static str, &str)]) -> Result<(), Error> {
    match features.iter().find(|(used, ..)| *used) {
        Some((_, name, instead)) => Err(Error::invalid(name, format!("Local Modal does not support it; {instead}"))),
        None => Ok(()),
    }
}

fn check_gpu(resources: Option<&pb::Resources>, ignore_gpu: bool) -> Result<(), Error> {
    match resources.and_then(|resources| resources.gpu_config.as_ref()) {
        Some(gpu) if gpu.count > 0 && !ignore_gpu => {
            let reason = format!(
                "Local Modal has no {}; leave gpu out, or serve with --ignore-gpu to run the function without one",
                if gpu.gpu_type.is_empty() { "GPU" } else { &gpu.gpu_type }
            );
            Err(Error::invalid("gpu", reason))
        }
        _ => Ok(()),
    }
}
