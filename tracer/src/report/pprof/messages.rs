//! The messages of pprof's `profile.proto` (google/pprof, `proto/profile.proto`, package
//! `perftools.profiles`). Texts are indices into the string table.

/// `Profile`: samples, and the tables that they refer to.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoProfile {
    /// The types of a sample's values.
    #[prost(message, repeated, tag = "1")]
    pub(super) sample_type: Vec<ProtoValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub(super) sample: Vec<ProtoSample>,
    /// Programs and libraries, the main one first.
    #[prost(message, repeated, tag = "3")]
    pub(super) mapping: Vec<ProtoMapping>,
    /// Places in code.
    #[prost(message, repeated, tag = "4")]
    pub(super) location: Vec<ProtoLocation>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub(super) function: Vec<ProtoFunction>,
    /// Texts; the first is empty. UTF-8 by the format, but not by every writer.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) string_table: Vec<Vec<u8>>,
    /// A pattern of frames that viewers drop.
    #[prost(int64, tag = "7")]
    pub(super) drop_frames: i64,
    /// A pattern of frames that viewers keep all the same.
    #[prost(int64, tag = "8")]
    pub(super) keep_frames: i64,
    /// The time at which recording began, in nanoseconds of Unix time.
    #[prost(int64, tag = "9")]
    pub(super) time_nanos: i64,
    /// The length of the recording in nanoseconds.
    #[prost(int64, tag = "10")]
    pub(super) duration_nanos: i64,
    /// The unit of `period`.
    #[prost(message, optional, tag = "11")]
    pub(super) period_type: Option<ProtoValueType>,
    /// The distance of samples.
    #[prost(int64, tag = "12")]
    pub(super) period: i64,
    /// Comments.
    #[prost(int64, repeated, tag = "13")]
    pub(super) comment: Vec<i64>,
    /// The name of the type that viewers show first.
    #[prost(int64, tag = "14")]
    pub(super) default_sample_type: i64,
    /// An address of documentation.
    #[prost(int64, tag = "15")]
    pub(super) doc_url: i64,
}

/// `ValueType`: a value's name and unit.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoValueType {
    /// The name.
    #[prost(int64, tag = "1")]
    pub(super) r#type: i64,
    /// The unit.
    #[prost(int64, tag = "2")]
    pub(super) unit: i64,
}

/// `Sample`: a stack and its values.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoSample {
    /// The stack, the innermost location first.
    #[prost(uint64, repeated, tag = "1")]
    pub(super) location_id: Vec<u64>,
    /// A value of each type.
    #[prost(int64, repeated, tag = "2")]
    pub(super) value: Vec<i64>,
    /// Labels.
    #[prost(message, repeated, tag = "3")]
    pub(super) label: Vec<ProtoLabel>,
}

/// `Label`: a text or a number.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoLabel {
    /// The name.
    #[prost(int64, tag = "1")]
    pub(super) key: i64,
    /// The text, or 0.
    #[prost(int64, tag = "2")]
    pub(super) str: i64,
    /// The number.
    #[prost(int64, tag = "3")]
    pub(super) num: i64,
    /// The number's unit.
    #[prost(int64, tag = "4")]
    pub(super) num_unit: i64,
}

/// `Mapping`: a program or library.
#[derive(Clone, PartialEq, prost::Message)]
#[expect(clippy::struct_excessive_bools, reason = "the fields are those of the format")]
pub(super) struct ProtoMapping {
    /// Its number, from 1.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// The first address that it was mapped at.
    #[prost(uint64, tag = "2")]
    pub(super) memory_start: u64,
    /// The address after its last.
    #[prost(uint64, tag = "3")]
    pub(super) memory_limit: u64,
    /// The offset in the file of the first address.
    #[prost(uint64, tag = "4")]
    pub(super) file_offset: u64,
    /// The file.
    #[prost(int64, tag = "5")]
    pub(super) filename: i64,
    /// The build id in hexadecimal.
    #[prost(int64, tag = "6")]
    pub(super) build_id: i64,
    /// True if locations have functions.
    #[prost(bool, tag = "7")]
    pub(super) has_functions: bool,
    /// True if functions have files.
    #[prost(bool, tag = "8")]
    pub(super) has_filenames: bool,
    /// True if there are lines.
    #[prost(bool, tag = "9")]
    pub(super) has_line_numbers: bool,
    /// True if inlined functions are there.
    #[prost(bool, tag = "10")]
    pub(super) has_inline_frames: bool,
}

/// `Location`: a place in code.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoLocation {
    /// Its number, from 1.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// The mapping, or 0.
    #[prost(uint64, tag = "2")]
    pub(super) mapping_id: u64,
    /// The address.
    #[prost(uint64, tag = "3")]
    pub(super) address: u64,
    /// Its functions: those that are inlined first, the innermost first of all.
    #[prost(message, repeated, tag = "4")]
    pub(super) line: Vec<ProtoLine>,
    /// True if several places of equal code are one.
    #[prost(bool, tag = "5")]
    pub(super) is_folded: bool,
}

/// `Line`: a line of a function.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoLine {
    /// The function.
    #[prost(uint64, tag = "1")]
    pub(super) function_id: u64,
    /// The line in its file.
    #[prost(int64, tag = "2")]
    pub(super) line: i64,
    /// The column in the line.
    #[prost(int64, tag = "3")]
    pub(super) column: i64,
}

/// `Function`: a function.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoFunction {
    /// Its number, from 1.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// Its name for people.
    #[prost(int64, tag = "2")]
    pub(super) name: i64,
    /// Its symbol.
    #[prost(int64, tag = "3")]
    pub(super) system_name: i64,
    /// Its source file.
    #[prost(int64, tag = "4")]
    pub(super) filename: i64,
    /// The line that it begins at.
    #[prost(int64, tag = "5")]
    pub(super) start_line: i64,
}
