//! Which message of a device is the answer to a call.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::{Error, ErrorKind, Result},
    types::Payload,
};

/// Which message of a device is the answer to [`Bridge::call`](crate::Bridge::call). Messages that are not JSON never are.
#[derive(Clone, Debug, PartialEq)]
pub struct CallMatch(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Ocpp,
    Pointer { pointer: String, value: Value },
}

/// As JSON has it: `{"ocpp":true}`, or `{"pointer":"/id","value":7}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    ocpp: bool,
    #[serde(default)]
    pointer: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
}

/// `null` is a value, too.
fn given<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// What the answer to one call has.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Expected {
    /// The unique id of the OCPP call.
    Ocpp(String),
    Pointer {
        pointer: String,
        value: Value,
    },
}

impl CallMatch {
    /// The message is an OCPP CALL, `[2,"<unique id>","<action>",{…}]`, and its answer the CALLRESULT `[3,"<unique id>",…]` or the
    /// CALLERROR `[4,"<unique id>",…]` with the same id. A device has one such call at a time.
    pub fn ocpp() -> Self {
        Self(Kind::Ocpp)
    }

    /// The answer is the first message that has this value at this JSON pointer (RFC 6901; empty: the whole message). `value` is
    /// JSON: `7`, `"x"`, `true`. The types count: `7` is neither `"7"` nor `7.0`.
    ///
    /// # Errors
    /// `Argument` for a pointer that does not begin with `/` or has a `~` without `0` or `1`, or a value that is not JSON.
    pub fn pointer(pointer: &str, value: &str) -> Result<Self> {
        let value = serde_json::from_str(value)
            .map_err(|error| argument(format!("match: the value is not JSON: {error}")))?;
        Self::pointer_to(pointer, value)
    }

    pub(crate) fn pointer_to(pointer: &str, value: Value) -> Result<Self> {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(argument(format!(
                "match: {pointer:?} is no JSON pointer; one begins with /"
            )));
        }
        // RFC 6901 §3. No message has anything there, so the call would end with its time-out.
        if pointer
            .split('~')
            .skip(1)
            .any(|rest| !rest.starts_with(['0', '1']))
        {
            return Err(argument(format!(
                "match: {pointer:?} is no JSON pointer; a ~ is written as ~0"
            )));
        }
        let pointer = pointer.to_owned();
        Ok(Self(Kind::Pointer { pointer, value }))
    }

    /// What C and Python say in one text: `{"ocpp":true}`, or `{"pointer":"/id","value":7}`.
    ///
    /// # Errors
    /// `Argument` for anything else.
    pub fn from_json(text: &str) -> Result<Self> {
        let written: Written = serde_json::from_str(text)
            .map_err(|error| argument(format!("match: {error}; {FORMS}")))?;
        match written {
            Written {
                ocpp: true,
                pointer: None,
                value: None,
            } => Ok(Self::ocpp()),
            Written {
                ocpp: false,
                pointer: Some(pointer),
                value: Some(value),
            } => Self::pointer_to(&pointer, value),
            _ => Err(argument(format!("match: {FORMS}"))),
        }
    }

    /// What the answer to this message has.
    pub(crate) fn expect(&self, message: &Payload) -> Result<Expected> {
        match &self.0 {
            Kind::Pointer { pointer, value } => Ok(Expected::Pointer {
                pointer: pointer.clone(),
                value: value.clone(),
            }),
            Kind::Ocpp => {
                let no_call = || {
                    argument(
                        "ocpp: the message is no OCPP CALL, [2,\"<unique id>\",\"<action>\",{…}]",
                    )
                };
                let call: Value =
                    serde_json::from_slice(message.as_bytes()).map_err(|_| no_call())?;
                match call.as_array().map(Vec::as_slice) {
                    Some([kind, Value::String(id), Value::String(_), Value::Object(_)])
                        if *kind == CALL && !id.is_empty() && message.is_text() =>
                    {
                        Ok(Expected::Ocpp(id.clone()))
                    }
                    _ => Err(no_call()),
                }
            }
        }
    }
}

impl Expected {
    /// Whether this message is the answer.
    pub(crate) fn accepts(&self, message: &Value) -> bool {
        match self {
            Self::Pointer { pointer, value } => message.pointer(pointer) == Some(value),
            Self::Ocpp(id) => {
                let words = message.as_array().map(Vec::as_slice);
                matches!(words, Some([kind, Value::String(its), ..])
                    if (*kind == CALLRESULT || *kind == CALLERROR) && its == id)
            }
        }
    }

    pub(crate) fn is_ocpp(&self) -> bool {
        matches!(self, Self::Ocpp(_))
    }
}

fn argument(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Argument, text)
}

const FORMS: &str = "it is {\"ocpp\":true} or {\"pointer\":\"/…\",\"value\":…}";
// Message types of OCPP-J.
const CALL: u64 = 2;
const CALLRESULT: u64 = 3;
const CALLERROR: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(matcher: &CallMatch, call: &str, message: &str) -> bool {
        let expected = matcher.expect(&Payload::text(call)).unwrap();
        expected.accepts(&serde_json::from_str(message).unwrap())
    }

    #[test]
    fn an_ocpp_answer_is_the_result_or_the_error_of_the_call() {
        let call = r#"[2,"17","Reset",{"type":"Soft"}]"#;
        for (message, is_it) in [
            (r#"[3,"17",{"status":"Accepted"}]"#, true),
            (r#"[4,"17","NotSupported","",{}]"#, true),
            (r#"[3,"17"]"#, true),
            (r#"[3,"18",{}]"#, false),
            (r#"[2,"17","Heartbeat",{}]"#, false),
            ("[3,17,{}]", false),
            ("[3]", false),
            ("[]", false),
            ("{}", false),
            ("3", false),
        ] {
            assert_eq!(
                accepts(&CallMatch::ocpp(), call, message),
                is_it,
                "{message}"
            );
        }
    }

    #[test]
    fn only_an_ocpp_call_has_an_ocpp_answer() {
        for message in [
            r#"[3,"17",{}]"#,
            r#"[2,17,"Reset",{}]"#,
            r#"[2,"","Reset",{}]"#,
            r#"[2,"17","Reset"]"#,
            r#"{"id":1}"#,
            "x",
            "",
        ] {
            let refused = CallMatch::ocpp().expect(&Payload::text(message));
            let error = refused.expect_err(message);
            assert_eq!(error.kind(), ErrorKind::Argument);
        }
        let binary = Payload::binary(&br#"[2,"17","Reset",{}]"#[..]);
        assert!(CallMatch::ocpp().expect(&binary).is_err());
    }

    #[test]
    fn a_pointer_finds_a_value_of_the_same_type() {
        for (pointer, value, message, is_it) in [
            ("/id", "7", r#"{"id":7}"#, true),
            ("/id", "7", r#"{"id":"7"}"#, false),
            ("/id", "7", r#"{"id":7.0}"#, false),
            ("/id", "null", r#"{"id":null}"#, true),
            ("/id", "null", "{}", false),
            ("/a/1/b~1c", "\"x\"", r#"{"a":[0,{"b/c":"x"}]}"#, true),
            ("", "\"pong\"", "\"pong\"", true),
            ("/", "1", r#"{"":1}"#, true),
        ] {
            let matcher = CallMatch::pointer(pointer, value).unwrap();
            assert_eq!(accepts(&matcher, "", message), is_it, "{pointer} {message}");
        }
        for pointer in ["id", "/a~", "/a~2", "/~~1", "/a~/b"] {
            assert!(CallMatch::pointer(pointer, "1").is_err(), "{pointer}");
        }
        assert!(CallMatch::pointer("/id", "x").is_err());
    }

    #[test]
    fn a_match_as_json_is_one_of_two_forms() {
        assert_eq!(
            CallMatch::from_json(r#"{"ocpp":true}"#).unwrap(),
            CallMatch::ocpp()
        );
        assert_eq!(
            CallMatch::from_json(r#"{"pointer":"/id","value":null}"#).unwrap(),
            CallMatch::pointer("/id", "null").unwrap()
        );
        for text in [
            "",
            "{}",
            r#"{"ocpp":false}"#,
            r#"{"pointer":"/id"}"#,
            r#"{"value":1}"#,
            r#"{"ocpp":true,"pointer":"/id","value":1}"#,
            r#"{"pointer":"id","value":1}"#,
            r#"{"ocpp":true,"x":1}"#,
        ] {
            assert!(CallMatch::from_json(text).is_err(), "{text}");
        }
    }
}
