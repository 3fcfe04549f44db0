//! The graph of calls: which input made which calls.

use std::collections::HashMap;

use modal_proto as pb;

use super::{Call, State};
use crate::error::Error;

/// The most inputs in a call graph.
const MAX_INPUTS: usize = 10_000;

impl State {
    /// The inputs of the call graph that a call is in: those of its root, and of all calls that they made.
    pub fn call_graph(&self, call_id: &str) -> Result<pb::FunctionGetCallGraphResponse, Error> {
        let call = self.call(call_id)?;
        let mut children: HashMap<&str, Vec<&Call>> = HashMap::new();
        let mut owners: HashMap<&str, &Call> = HashMap::new();
        for call in self.calls.values() {
            if let Some(parent) = &call.parent_input_id {
                children.entry(parent).or_default().push(call);
            }
            owners.extend(call.unfinished.iter().map(|id| (id.as_str(), call)));
            owners.extend(call.outputs.iter().map(|output| (output.input_id.as_str(), call)));
        }
        let mut root = call;
        // An input is older than the calls that it makes, so this terminates.
        while let Some(parent) = root.parent_input_id.as_ref().and_then(|id| owners.get(id.as_str())) {
            root = parent;
        }
        let mut graph = pb::FunctionGetCallGraphResponse::default();
        let mut next = vec![root];
        while let Some(call) = next.pop() {
            graph.function_calls.push(self.graph_call(call));
            for input in self.graph_inputs(call) {
                next.extend(children.get(input.input_id.as_str()).into_iter().flatten());
                graph.inputs.push(input);
            }
            if graph.inputs.len() > MAX_INPUTS {
                graph.truncated = true;
                break;
            }
        }
        Ok(graph)
    }

    fn graph_call(&self, call: &Call) -> pb::FunctionCallCallGraphInfo {
        let function = self.live_definition(&call.function_id).map(|d| &d.function);
        pb::FunctionCallCallGraphInfo {
            function_call_id: call.id.clone(),
            parent_input_id: call.parent_input_id.clone().unwrap_or_default(),
            function_name: function.map(|f| f.function_name.clone()).unwrap_or_default(),
            module_name: function.map(|f| f.module_name.clone()).unwrap_or_default(),
        }
    }

    fn graph_inputs(&self, call: &Call) -> Vec<pb::InputCallGraphInfo> {
        let pending = call.unfinished.iter().map(|id| pb::InputCallGraphInfo {
            input_id: id.clone(),
            function_call_id: call.id.clone(),
            task_id: self.inputs.get(id).and_then(|input| input.task_id.clone()).unwrap_or_default(),
            ..Default::default()
        });
        let ended = call.outputs.iter().map(|output| {
            let item = output.item();
            pb::InputCallGraphInfo {
                input_id: item.input_id,
                status: item.result.map(|result| result.status).unwrap_or_default(),
                function_call_id: call.id.clone(),
                task_id: item.task_id,
            }
        });
        pending.chain(ended).collect()
    }
}
