//! The ASGI scope of a request, as the arguments of its input: `[[scope], {}]` in CBOR, which the SDK reads.

use std::net::SocketAddr;

use axum::http::{Version, request::Parts};
use modal_proto::DataFormat;

/// The format of these arguments.
pub const FORMAT: DataFormat = DataFormat::Cbor;

/// The arguments for an HTTP request.
pub fn http(parts: &Parts, client: SocketAddr) -> Vec<u8> {
    let method = Value::text(parts.method.as_str());
    arguments(parts, client, "http", "http", vec![("method", method)])
}

/// The arguments for a WebSocket.
pub fn websocket(parts: &Parts, client: SocketAddr, subprotocols: &[String]) -> Vec<u8> {
    let subprotocols = Value::List(subprotocols.iter().map(|name| Value::text(name)).collect());
    arguments(parts, client, "websocket", "ws", vec![("subprotocols", subprotocols)])
}

fn arguments(parts: &Parts, client: SocketAddr, kind: &str, scheme: &str, more: Vec<(&'static str, Value)>) -> Vec<u8> {
    let http_version = match parts.version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    let path = parts.uri.path();
    let headers = parts.headers.iter().map(|(name, value)| {
        Value::List(vec![Value::Bytes(name.as_str().as_bytes().to_vec()), Value::Bytes(value.as_bytes().to_vec())])
    });
    let asgi = vec![("version", Value::text("3.0")), ("spec_version", Value::text("2.3"))];
    let mut scope = vec![
        ("type", Value::text(kind)),
        ("asgi", Value::Map(asgi)),
        ("http_version", Value::text(http_version)),
        ("scheme", Value::text(scheme)),
        ("path", Value::Text(decode(path))),
        ("raw_path", Value::Bytes(path.as_bytes().to_vec())),
        ("query_string", Value::Bytes(parts.uri.query().unwrap_or_default().as_bytes().to_vec())),
        ("root_path", Value::text("")),
        ("headers", Value::List(headers.collect())),
        ("client", Value::List(vec![Value::Text(client.ip().to_string()), Value::Unsigned(client.port().into())])),
    ];
    scope.extend(more);
    let mut encoded = Vec::new();
    Value::List(vec![Value::List(vec![Value::Map(scope)]), Value::Map(Vec::new())]).encode(&mut encoded);
    encoded
}

/// Decodes percent signs. Invalid UTF-8 becomes replacement characters.
fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                decoded.push(byte);
                at += 3;
            }
            _ => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// As much of CBOR as a scope needs.
enum Value {
    Unsigned(u64),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(&'static str, Value)>),
}

impl Value {
    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(number) => head(0, *number, out),
            Self::Bytes(bytes) => {
                head(2, bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => {
                head(3, text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
            Self::List(items) => {
                head(4, items.len() as u64, out);
                items.iter().for_each(|item| item.encode(out));
            }
            Self::Map(entries) => {
                head(5, entries.len() as u64, out);
                for (key, value) in entries {
                    Self::text(key).encode(out);
                    value.encode(out);
                }
            }
        }
    }
}

/// The major type and the number that begin each value, in the longest form: any is valid.
fn head(major: u8, number: u64, out: &mut Vec<u8>) {
    const EIGHT_BYTES_FOLLOW: u8 = 27;
    match u8::try_from(number) {
        Ok(small) if small < 24 => out.push(major << 5 | small),
        _ => {
            out.push(major << 5 | EIGHT_BYTES_FOLLOW);
            out.extend(number.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_percent_decoded_once() {
        assert_eq!(decode("/a%20b/%2525/%c3%a9"), "/a b/%25/é");
        assert_eq!(decode("/%/%zz/%+1/100%"), "/%/%zz/%+1/100%");
    }

    #[test]
    fn values_are_encoded_as_cbor() {
        let mut out = Vec::new();
        Value::Map(vec![("a", Value::List(vec![Value::Unsigned(1), Value::Bytes(vec![0; 24])]))]).encode(&mut out);
        assert_eq!(out[..6], [0xa1, 0x61, b'a', 0x82, 0x01, 0x5b]);
        assert_eq!(out.len(), 6 + 8 + 24);
    }
}
