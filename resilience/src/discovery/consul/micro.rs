//! What go-micro's registry writes into the tags of a service, within limits: pure.
//!
//! A tag is a letter, how it is encoded (`-`: hexadecimal zlib, `=`: as it is, in old versions) and a value:
//! `v` the version, `t` a JSON object of metadata, `e` an endpoint in JSON. Tags that are none of these, or
//! cannot be read, are somebody else's.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

/// What one tag may hold once it is inflated.
const MAX_TAG: u64 = 64 << 10;
/// How much of the tags of one instance is read, inflated.
const MAX_ALL: usize = 512 << 10;

/// What the tags say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Micro {
    pub(super) version: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The names of its endpoints.
    pub(super) methods: Vec<String>,
}

/// Reads the tags of one instance.
pub(super) fn read(tags: &[String]) -> Micro {
    let mut micro = Micro::default();
    let mut left = MAX_ALL;
    for tag in tags {
        let Some((kind, value)) = decode(tag) else { continue };
        let Some(rest) = left.checked_sub(value.len()) else { break };
        left = rest;
        match kind {
            b'v' if micro.version.is_none() => micro.version = Some(value),
            b't' => {
                let pairs = serde_json::from_str::<BTreeMap<String, String>>(&value);
                micro.metadata.extend(pairs.unwrap_or_default());
            }
            b'e' => {
                let method = serde_json::from_str::<Method>(&value).ok();
                micro.methods.extend(method.map(|method| method.name));
            }
            _ => {}
        }
    }
    micro
}

#[derive(Deserialize)]
struct Method {
    name: String,
}

/// The letter of a tag and its value.
fn decode(tag: &str) -> Option<(u8, String)> {
    let (kind, rest) = (*tag.as_bytes().first()?, tag.get(1..)?);
    if !matches!(kind, b'v' | b't' | b'e') {
        return None;
    }
    if let Some(plain) = rest.strip_prefix('=') {
        return (plain.len() as u64 <= MAX_TAG).then(|| (kind, plain.to_owned()));
    }
    let bytes = hex(rest.strip_prefix('-')?)?;
    let mut text = String::new();
    // One byte more than it may have tells that it has too many.
    ZlibDecoder::new(&*bytes).take(MAX_TAG + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= MAX_TAG).then_some((kind, text))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// As go-micro writes it.
    fn tag(kind: char, value: &str) -> String {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(value.as_bytes()).unwrap();
        zlib.finish().unwrap().iter().fold(format!("{kind}-"), |mut tag, byte| {
            write!(tag, "{byte:02x}").unwrap();
            tag
        })
    }

    #[test]
    fn reads_what_go_micro_writes_and_wrote() {
        let endpoint =
            r#"{"name":"Greeter.Hello","request":{"name":"Request","type":"Request"},"metadata":{}}"#;
        let new = [
            tag('t', r#"{"protocol":"grpc"}"#),
            tag('t', r#"{"zone":"a"}"#),
            tag('e', endpoint),
            tag('v', "1.2.3"),
            "v1".into(),
        ];
        let old = [
            r#"t={"protocol":"grpc"}"#.into(),
            r#"t={"zone":"a"}"#.into(),
            format!("e={endpoint}"),
            "v=1.2.3".into(),
        ];
        let metadata = [("protocol", "grpc"), ("zone", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let said = Micro {
            version: Some("1.2.3".into()),
            metadata: metadata.into(),
            methods: vec!["Greeter.Hello".into()],
        };
        assert_eq!(read(&new), said);
        assert_eq!(read(&old), said);
    }

    /// Made by Go's compress/zlib, which go-micro uses, of `latest`.
    #[test]
    fn reads_the_bytes_of_gos_own_zlib() {
        let tags = ["v-789cca492c492d2e01040000ffff08cc028e".to_owned()];
        assert_eq!(read(&tags).version.as_deref(), Some("latest"));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for other in
            ["", "v", "v-", "v-zz", "v-789", "v-00ff", "é-00", "t=[1]", "t={\"a\":1}", "e={}", "x-789c"]
        {
            assert_eq!(read(&[other.to_owned()]), Micro::default(), "{other}");
        }
    }

    #[test]
    fn a_tag_that_unfolds_is_not_unfolded_beyond_its_limit() {
        let bomb = tag('v', &"0".repeat(8 << 20));
        assert!(bomb.len() < 32 << 10, "a small tag: {}", bomb.len());
        assert_eq!(read(&[bomb]).version, None);
        let full = tag('t', &format!(r#"{{"k":"{}"}}"#, "0".repeat(60 << 10)));
        let late = tag('v', "1");
        let many: Vec<_> = std::iter::repeat_n(full, 9).chain([late]).collect();
        assert_eq!(read(&many).version, None, "nor are many");
    }
}
