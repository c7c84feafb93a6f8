//! What go-micro's Consul registry reads of an entry: tags, as its own servers write them. Pure.
//!
//! Each is a kind, `-`, and the hex of a zlib stream: `v-` of the version, `t-` of a JSON object with one pair of
//! the node's metadata, `e-` of an endpoint in JSON. A client takes the first tag of a kind for the form of all of
//! them, by their second byte, and takes any tag for one of a kind that begins with its letter: so these come before
//! all others, like `traefik.enable=true`. A tag of one letter, `t` or `e`, ends the client.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fusebox_policy::v1alpha1::InboundSpec;
use serde_json::json;

/// The key of the metadata that is the version.
const VERSION: &str = "version";
/// The version of what declares none: go-micro groups instances by it, and callers may filter by it.
const DEFAULT_VERSION: &str = "latest";
/// What a go-micro server over gRPC says of itself; what is declared comes first.
const SERVER: [(&str, &str); 3] = [("registry", "consul"), ("server", "grpc"), ("transport", "grpc")];
/// The largest part of a zlib stream that is stored as it is.
const LARGEST_BLOCK: usize = 0xffff;

/// The tags of every instance with this metadata, whose policy names these methods.
pub fn tags(meta: &BTreeMap<String, String>, inbound: Option<&InboundSpec>) -> Vec<String> {
    let version = meta.get(VERSION).map_or(DEFAULT_VERSION, String::as_str);
    let mut pairs = BTreeMap::from(SERVER);
    pairs.extend(meta.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let metadata = pairs.into_iter().map(|(key, value)| json!({ key: value }).to_string());
    let methods: BTreeSet<String> = inbound.into_iter().flat_map(endpoint_names).collect();
    // Objects in place of what is not known: some of go-micro's tools look into them unasked.
    let endpoints = methods
        .into_iter()
        .map(|name| json!({ "name": name, "request": {}, "response": {}, "metadata": {} }).to_string());
    std::iter::once(tag('v', version))
        .chain(metadata.map(|json| tag('t', &json)))
        .chain(endpoints.map(|json| tag('e', &json)))
        .collect()
}

/// The gRPC methods that are named, as go-micro calls them: `UserService.GetUser`, without the package.
fn endpoint_names(inbound: &InboundSpec) -> impl Iterator<Item = String> {
    inbound.methods.iter().filter_map(|method| {
        let grpc = method.matches.grpc.as_ref()?;
        let service = grpc.service.rsplit('.').next().unwrap_or_default();
        Some(format!("{service}.{}", grpc.method.as_ref()?))
    })
}

fn tag(kind: char, text: &str) -> String {
    let mut tag = format!("{kind}-");
    for byte in zlib(text.as_bytes()) {
        // Writing to a String does not fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag
}

/// A zlib stream (RFC 1950) that stores the text as it is. Not compressed, so that its bytes depend on the text
/// alone: another version of a compressor would be a write of every entry.
fn zlib(text: &[u8]) -> Vec<u8> {
    // Deflate with a window of 32 KiB, at the fastest level.
    let mut stream = vec![0x78, 0x01];
    let mut rest = text;
    loop {
        let (block, after) = rest.split_at(rest.len().min(LARGEST_BLOCK));
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        stream.push(u8::from(after.is_empty()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    stream.extend(adler32(text).to_be_bytes());
    stream
}

fn adler32(text: &[u8]) -> u32 {
    let sums = text.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    (sums.1 << 16) | sums.0
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What a tag says. A reader of its own, for streams that store; real clients of go-micro read them in
    /// user-service/tests/go_micro.
    fn said(tag: &str) -> (char, String) {
        let (kind, hex) = tag.split_once('-').unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let (length, text) =
            (usize::from(u16::from_le_bytes([bytes[3], bytes[4]])), &bytes[7..bytes.len() - 4]);
        assert_eq!(text.len(), length, "one block");
        (kind.parse().unwrap(), String::from_utf8(text.to_vec()).unwrap())
    }

    fn meta(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Written down: other bytes are a write of every entry of every service.
    #[test]
    fn the_bytes_are_those_that_other_zlibs_read() {
        // python3 -c "import zlib; print(zlib.compress(b'latest', 0).hex())"
        assert_eq!(tag('v', "latest"), "v-7801010600f9ff6c617465737408cc028e");
        assert_eq!(tag('v', ""), "v-7801010000ffff00000001");
    }

    #[test]
    fn a_long_text_is_stored_in_blocks() {
        let text = vec![b'x'; LARGEST_BLOCK + 1];
        let stream = zlib(&text);
        assert_eq!(stream.len(), 2 + 5 + LARGEST_BLOCK + 5 + 1 + 4);
        assert_eq!(stream[2], 0, "not the last block");
        assert_eq!(stream[2 + 5 + LARGEST_BLOCK..][..6], [1, 1, 0, 0xfe, 0xff, b'x']);
    }

    #[test]
    fn the_version_comes_first_then_metadata_then_the_methods_that_are_named() {
        let inbound: InboundSpec = serde_saphyr::from_str(
            "
methods:
- match: { grpc: { service: user.v1.UserService, method: GetUser } }
- match: { grpc: { service: user.v2.UserService, method: GetUser } }
- match: { grpc: { service: user.v1.UserService } }
- match: { grpc: { service: Admin, method: Reset } }
- match: { http: { pathPrefix: /users } }
",
        )
        .unwrap();
        let meta = meta(&[("team", "shop"), ("transport", "other"), ("version", "1.2")]);
        let found: Vec<(char, String)> = tags(&meta, Some(&inbound)).iter().map(|tag| said(tag)).collect();
        let (version, rest) = found.split_first().unwrap();
        assert_eq!(*version, ('v', "1.2".to_owned()));
        let (pairs, endpoints) = rest.split_at(5);
        let pairs: Vec<_> = pairs.iter().map(|(kind, json)| (*kind, json.as_str())).collect();
        let expected = [
            r#"{"registry":"consul"}"#,
            r#"{"server":"grpc"}"#,
            r#"{"team":"shop"}"#,
            r#"{"transport":"other"}"#,
            r#"{"version":"1.2"}"#,
        ];
        assert_eq!(pairs, expected.map(|json| ('t', json)), "what is declared comes first");
        let names = endpoints.iter().map(|(kind, json)| {
            assert_eq!(*kind, 'e');
            serde_json::from_str::<Value>(json).unwrap()["name"].as_str().unwrap().to_owned()
        });
        assert_eq!(names.collect::<Vec<_>>(), ["Admin.Reset", "UserService.GetUser"], "each once");
    }

    #[test]
    fn what_declares_nothing_has_a_version_all_the_same() {
        let found = tags(&meta(&[]), None);
        assert_eq!(said(&found[0]), ('v', "latest".to_owned()));
        assert_eq!(found.len(), 1 + SERVER.len());
    }
}
