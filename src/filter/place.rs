//! What stands where in a stream record, so far as patterns may ask for it.
//!
//! Owns the shape: which members there are, what their values look like, and what is told
//! to somebody who asks for another. The record's form is that of Lambda's event.

use super::spanned::Json;

/// A place in a record at which an object stands, or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The record itself.
    Record,
    /// `userIdentity`
    Identity,
    /// `dynamodb`
    StreamRecord,
    /// `Keys`, an image, or what stands in `M`: attributes by their names.
    Attributes,
    /// An attribute's value: an object with its type as its only member.
    Value,
    /// Where there are no more names.
    Leaf(Scalars),
}

/// What kind of value stands at a leaf, or in the array at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalars {
    Text,
    /// A number that stands in a string, as DynamoDB writes them.
    NumberText,
    Number,
    Bool,
}

impl Place {
    /// What stands at the member `name`; a fragment about what is there instead.
    pub fn member(self, name: &str) -> Result<Self, String> {
        use Scalars::{Bool, Number, NumberText, Text};
        Ok(match (self, name) {
            (Self::Record, "dynamodb") => Self::StreamRecord,
            (Self::Record, "userIdentity") => Self::Identity,
            (
                Self::Record,
                "eventName" | "eventID" | "eventSource" | "eventVersion" | "awsRegion",
            )
            | (Self::Identity, "type" | "principalId")
            | (Self::StreamRecord, "SequenceNumber" | "StreamViewType")
            | (Self::Value, "S" | "B" | "SS" | "BS") => Self::Leaf(Text),
            (Self::StreamRecord, "Keys" | "NewImage" | "OldImage") | (Self::Value, "M") => {
                Self::Attributes
            }
            (Self::StreamRecord, "ApproximateCreationDateTime" | "SizeBytes") => Self::Leaf(Number),
            (Self::Attributes, _) | (Self::Value, "L") => Self::Value,
            (Self::Value, "N" | "NS") => Self::Leaf(NumberText),
            (Self::Value, "BOOL" | "NULL") => Self::Leaf(Bool),
            (Self::Record, "eventSourceARN") => {
                return Err("is the same in every record of the stream; take it out".to_owned());
            }
            (Self::Record, "body" | "data" | "value") => {
                return Err(
                    "is where other sources have their data; a stream record has it in dynamodb"
                        .to_owned(),
                );
            }
            (Self::Record, "Keys" | "NewImage" | "OldImage") => {
                return Err(format!("stands in dynamodb: {{\"dynamodb\":{{\"{name}\":…}}}}"));
            }
            _ => return Err(format!("stands in no stream record here; {}", self.expected())),
        })
    }

    /// What may stand here.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Record => {
                "an object with dynamodb, eventName, userIdentity, eventID, eventSource, eventVersion or awsRegion is expected"
            }
            Self::Identity => "an object with type or principalId is expected",
            Self::StreamRecord => {
                "an object with Keys, NewImage, OldImage, SequenceNumber, SizeBytes, StreamViewType or ApproximateCreationDateTime is expected"
            }
            Self::Attributes => "an object with names of attributes is expected",
            Self::Value => {
                "an attribute's value has its type around it, S, N, B, BOOL, NULL, M, L, SS, NS or BS, as in {\"S\":[\"a\"]} or {\"S\":[{\"exists\":false}]}"
            }
            Self::Leaf(_) => "an array of what is looked for is expected",
        }
    }

    /// Whether the names here are spelled in two ways.
    pub fn ignores_case(self) -> bool {
        self == Self::Identity
    }
}

impl Scalars {
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::NumberText)
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Number | Self::NumberText)
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::NumberText => "a number, written as text",
            Self::Number => "a number",
            Self::Bool => "true or false",
        }
    }

    /// Why a literal equals no value of this kind, and what would.
    pub fn never_holds(self, literal: &Json) -> Option<&'static str> {
        let is = |first: &[u8]| match literal {
            Json::Token(token) => token.as_bytes().first().is_some_and(|byte| first.contains(byte)),
            _ => false,
        };
        match (self, literal) {
            (Self::Text | Self::NumberText, Json::Text(_)) => None,
            (Self::Number, Json::Token(_)) if !is(b"tfn") => None,
            (Self::Bool, Json::Token(_)) if is(b"tf") => None,
            (Self::Text, _) => Some("text stands here"),
            (Self::NumberText, _) => Some(
                "DynamoDB writes numbers as text: \"5\" matches exactly that, {\"numeric\":[\"=\",5]} whatever is worth 5",
            ),
            (Self::Number, _) => Some("a number stands here"),
            (Self::Bool, _) => Some("true or false stands here, without quotes"),
        }
    }
}
