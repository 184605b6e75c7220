//! How the published families of models mark the parts of an answer: the one table of their markers.

/// A part of an answer between two markers.
#[derive(Debug)]
pub(super) struct Section {
    /// What the chat template of a model contains that writes this section.
    pub(super) sign: &'static str,
    /// What it begins with.
    pub(super) open: &'static str,
    /// What it ends with: one of these, or the end of the answer.
    pub(super) close: &'static [&'static str],
    /// What is in it.
    pub(super) kind: Kind,
}

/// What is in a section.
#[derive(Debug)]
pub(super) enum Kind {
    /// What the model says to itself.
    Reasoning,
    /// What it says to the user.
    Content,
    /// Calls of tools, written in the first of these ways that fits.
    Calls(&'static [Syntax]),
    /// Calls of tools that are all of an answer. There is no marker but their own beginning.
    WholeAnswer,
    /// To whom the model speaks: to itself, to the user, or to a tool.
    Header { to_self: &'static Section, to_user: &'static Section, to_tool: &'static Section },
}

/// How a call of a tool is written.
#[derive(Debug)]
pub(super) enum Syntax {
    /// JSON: an object with a name and arguments, several of them, or a list of them.
    Json,
    /// The name between tags, then arguments.
    Tagged { call: Tag, arguments: Arguments },
    /// Python's, `name(key=value)`, or Gemma's, `call:name{key:value}`.
    Literal,
}

/// How a call's arguments are written.
#[derive(Debug)]
pub(super) enum Arguments {
    /// A JSON object.
    Json,
    /// Each by itself.
    Tagged(Tag),
}

/// A named part of a call.
#[derive(Debug)]
pub(super) struct Tag {
    /// Before the name.
    pub(super) open: &'static str,
    /// After the name.
    pub(super) name_end: &'static str,
    /// What the value begins after, if not at the end of the name.
    pub(super) value_after: &'static str,
    /// After the value; `{}` is the name.
    pub(super) close: &'static str,
}

const fn tag(
    open: &'static str,
    name_end: &'static str,
    value_after: &'static str,
    close: &'static str,
) -> Tag {
    Tag { open, name_end, value_after, close }
}

/// A name and a JSON object.
const fn with_json(call: Tag) -> Syntax {
    Syntax::Tagged { call, arguments: Arguments::Json }
}

/// A name and arguments that have tags of their own.
const fn with_tags(call: Tag, argument: Tag) -> Syntax {
    Syntax::Tagged { call, arguments: Arguments::Tagged(argument) }
}

const FUNCTION_AND_PARAMETERS: Syntax =
    with_tags(tag("<function=", ">", "", "</function>"), tag("<parameter=", ">", "", "</parameter>"));

const DSML: &[Syntax] = &[with_tags(
    tag("<｜DSML｜invoke name=\"", "\"", ">", "</｜DSML｜invoke>"),
    tag("<｜DSML｜parameter name=\"", "\"", ">", "</｜DSML｜parameter>"),
)];

/// The sections of all families, of which a model has those whose sign is in its chat template.
pub(super) const SECTIONS: &[Section] = &[
    // Reasoning.
    section("</think>", "<think>", &["</think>"], Kind::Reasoning),
    section("</thinking>", "<thinking>", &["</thinking>"], Kind::Reasoning),
    section("</seed:think>", "<seed:think>", &["</seed:think>"], Kind::Reasoning), // Seed-OSS
    section("</mm:think>", "<mm:think>", &["</mm:think>"], Kind::Reasoning),       // MiniMax-M3
    section("</think{}>", "<think:opensource>", &["</think:opensource>"], Kind::Reasoning), // Hunyuan 3
    section("[THINK]", "[THINK]", &["[/THINK]"], Kind::Reasoning),                 // Mistral
    section("<|inner_prefix|>", "<|inner_prefix|>", &["<|inner_suffix|>"], Kind::Reasoning), // Apertus
    section("<|channel>", "<|channel>thought", &["<channel|>"], Kind::Reasoning),  // Gemma 4
    section(
        "[BEGIN FINAL RESPONSE]",
        "Here are my reasoning steps:",
        &["[BEGIN FINAL RESPONSE]"],
        Kind::Reasoning,
    ), // Apriel
    // Calls, in the families' order of age.
    section(
        "<tool_call>",
        "<tool_call>",
        &["</tool_call>"],
        Kind::Calls(&[
            Syntax::Json, // Hermes, and Qwen and Granite after it
            FUNCTION_AND_PARAMETERS,
            with_tags(
                tag("<tool_call>", "\n", "", "</tool_call>"), // GLM, and Laguna, Ling and Spark after it
                tag("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
            ),
        ]),
    ),
    section("<tool_calls>", "<tool_calls>", &["</tool_calls>"], Kind::Calls(&[Syntax::Json])), // Apriel, MiniMax-M1
    section("<TOOLCALL>", "<TOOLCALL>", &["</TOOLCALL>"], Kind::Calls(&[Syntax::Json])),       // Nemotron 2
    section(
        "<function=",
        "<function=",
        &["</function>"],
        Kind::Calls(&[with_json(tag("<function=", ">", "", "</function>")), FUNCTION_AND_PARAMETERS]), // Functionary
    ),
    section(
        "</seed:tool_call>",
        "<seed:tool_call>",
        &["</seed:tool_call>"],
        Kind::Calls(&[FUNCTION_AND_PARAMETERS]),
    ),
    section(
        "<function name=\"",
        "<function name=\"",
        &["</function>"],
        Kind::Calls(&[with_tags(
            tag("<function name=\"", "\"", ">", "</function>"), // MiniCPM
            tag("<param name=\"", "\"", ">", "</param>"),
        )]),
    ),
    // Llama 3: JSON and nothing else, or the mark of a built-in tool.
    section("{\"name\": function name", "{\"name\"", &[], Kind::WholeAnswer),
    section("{\"name\": function name", "{\"type\": \"function\"", &[], Kind::WholeAnswer),
    section("<|python_tag|>", "<|python_tag|>", &[], Kind::Calls(&[Syntax::Json, Syntax::Literal])),
    section("functools[", "functools", &[], Kind::Calls(&[Syntax::Json])), // Firefunction
    section("<|tool_call|>", "<|tool_call|>", &["<|/tool_call|>"], Kind::Calls(&[Syntax::Json])), // Granite 3, Phi 4
    section(
        "[TOOL_CALLS]", // Mistral, the older and the newer way
        "[TOOL_CALLS]",
        &[],
        Kind::Calls(&[Syntax::Json, with_json(tag("[TOOL_CALLS]", "[ARGS]", "", ""))]),
    ),
    section(
        "<｜tool▁calls▁begin｜>", // DeepSeek R1 and V3, and V3.1
        "<｜tool▁calls▁begin｜>",
        &["<｜tool▁calls▁end｜>"],
        Kind::Calls(&[
            with_json(tag(
                "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                "\n",
                "```json\n",
                "<｜tool▁call▁end｜>",
            )),
            with_json(tag("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "", "<｜tool▁call▁end｜>")),
        ]),
    ),
    section(
        "｜DSML｜",
        "<｜DSML｜function_calls>",
        &["</｜DSML｜function_calls>"], // DeepSeek V3.2
        Kind::Calls(DSML),
    ),
    section("｜DSML｜", "<｜DSML｜tool_calls>", &["</｜DSML｜tool_calls>"], Kind::Calls(DSML)), // DeepSeek V4
    section("<|tool_call_start|>", LFM2.open, LFM2.close, LFM2.kind),
    section("<|tool_response_start|>", LFM2.open, LFM2.close, LFM2.kind),
    section("<|tools_prefix|>", "<|tools_prefix|>", &["<|tools_suffix|>"], Kind::Calls(&[Syntax::Json])), // Apertus
    section("<|tool_call>", "<|tool_call>", &["<tool_call|>"], Kind::Calls(&[Syntax::Literal])), // Gemma 4
    section(
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_begin|>",
        &["<|tool_calls_section_end|>"],
        Kind::Calls(&[with_json(tag(
            "<|tool_call_begin|>", // Kimi K2
            "<|tool_call_argument_begin|>",
            "",
            "<|tool_call_end|>",
        ))]),
    ),
    section(
        "<minimax:tool_call>",
        "<minimax:tool_call>",
        &["</minimax:tool_call>"],
        Kind::Calls(&[with_tags(
            tag("<invoke name=\"", "\"", ">", "</invoke>"),
            tag("<parameter name=\"", "\"", ">", "</parameter>"),
        )]),
    ),
    section(
        "]<]minimax[>[", // MiniMax-M3
        "]<]minimax[>[<tool_call>",
        &["]<]minimax[>[</tool_call>"],
        Kind::Calls(&[with_tags(
            tag("]<]minimax[>[<invoke name=\"", "\"", ">", "]<]minimax[>[</invoke>"),
            tag("]<]minimax[>[<", ">", "", "]<]minimax[>[</{}>"),
        )]),
    ),
    section(
        "<tool_calls{}>", // Hunyuan 3
        "<tool_calls:opensource>",
        &["</tool_calls:opensource>"],
        Kind::Calls(&[with_tags(
            tag("<tool_call:opensource>", "<tool_sep:opensource>", "", "</tool_call:opensource>"),
            tag(
                "<arg_key:opensource>",
                "</arg_key:opensource>",
                "<arg_value:opensource>",
                "</arg_value:opensource>",
            ),
        )]),
    ),
    section(
        "'function call'", // GigaChat 3
        "<|message_sep|>\n\nfunction call<|role_sep|>",
        &["<|message_sep|>"],
        Kind::Calls(&[Syntax::Json]),
    ),
    section("<|function_call|>", "<|function_call|>", &["<|message_sep|>"], Kind::Calls(&[Syntax::Json])),
    // Cohere, from Command R+ on.
    section("Action:\\n```json", "Action:\n```json", &["```"], Kind::Calls(&[Syntax::Json])),
    section("Action:\\n```json", "Action: ```json", &["```"], Kind::Calls(&[Syntax::Json])),
    section("<|START_THINKING|>", "<|START_THINKING|>", &["<|END_THINKING|>"], Kind::Reasoning),
    section("<|START_RESPONSE|>", "<|START_RESPONSE|>", &["<|END_RESPONSE|>"], Kind::Content),
    section("<|START_TEXT|>", "<|START_TEXT|>", &["<|END_TEXT|>"], Kind::Content),
    section("<|START_ACTION|>", "<|START_ACTION|>", &["<|END_ACTION|>"], Kind::Calls(&[Syntax::Json])),
    // Solar.
    section("<|tool_calls|>", "<|think|>", &["<|end|><|begin|>assistant", "<|end|>"], Kind::Reasoning),
    section("<|tool_calls|>", "<|content|>", &["<|end|>"], Kind::Content),
    section(
        "<|tool_calls|>",
        "<|tool_calls|>",
        &["<|calls|>"],
        Kind::Calls(&[with_json(tag("<|tool_call:begin|>", "<|tool_call:args|>", "", "<|tool_call:end|>"))]),
    ),
    // Kimi K3.
    section("'<|open|>'", "<|open|>think<|sep|>", &["<|close|>think<|sep|>"], Kind::Reasoning),
    section("'<|open|>'", "<|open|>response<|sep|>", &["<|close|>response<|sep|>"], Kind::Content),
    section("'<|open|>'", "<|close|>message<|sep|>", &[], Kind::Content),
    section(
        "'<|open|>'",
        "<|open|>tools<|sep|>",
        &["<|close|>tools<|sep|>"],
        Kind::Calls(&[with_tags(
            tag("<|open|>call tool=\"", "\"", "<|sep|>", "<|close|>call<|sep|>"),
            tag("<|open|>argument key=\"", "\"", "<|sep|>", "<|close|>argument<|sep|>"),
        )]),
    ),
    // gpt-oss (harmony) and Muse, where a header says to whom a message goes.
    section("<|channel|>", "<|start|>", &["<|message|>"], HARMONY),
    section("<|channel|>", "<|channel|>", &["<|message|>"], HARMONY),
    section("to=self<|message|>", "<|start|>", &["<|message|>"], MUSE),
];

const LFM2: Section =
    section("", "<|tool_call_start|>", &["<|tool_call_end|>"], Kind::Calls(&[Syntax::Literal, Syntax::Json]));

const HARMONY_ENDS: &[&str] = &["<|end|>", "<|return|>", "<|call|>"];
const HARMONY: Kind = Kind::Header {
    to_self: &section("", "", HARMONY_ENDS, Kind::Reasoning),
    to_user: &section("", "", HARMONY_ENDS, Kind::Content),
    to_tool: &section("", "", HARMONY_ENDS, Kind::Calls(&[with_json(tag("to=", "<|", "<|message|>", ""))])),
};

const MUSE_ENDS: &[&str] = &["<|eom|>", "<|eot|>"];
const MUSE: Kind = Kind::Header {
    to_self: &section("", "", MUSE_ENDS, Kind::Reasoning),
    to_user: &section("", "", MUSE_ENDS, Kind::Content),
    to_tool: &section(
        "",
        "",
        MUSE_ENDS,
        Kind::Calls(&[with_tags(
            tag("<atem:invoke name=\"", "\"", ">", "</atem:invoke>"),
            tag("<atem:parameter name=\"", "\"", ">", "</atem:parameter>"),
        )]),
    ),
};

const fn section(
    sign: &'static str,
    open: &'static str,
    close: &'static [&'static str],
    kind: Kind,
) -> Section {
    Section { sign, open, close, kind }
}

impl Section {
    /// Whether a token of this text may be a part of what marks the section.
    pub(super) fn uses(&self, token: &str) -> bool {
        let in_tag = |tag: &Tag| {
            [tag.open, tag.name_end, tag.value_after, tag.close].iter().any(|text| text.contains(token))
        };
        let in_syntax = |syntax: &Syntax| match syntax {
            Syntax::Json => false,
            Syntax::Literal => super::literal::GEMMA_QUOTE.contains(token),
            Syntax::Tagged { call, arguments } => {
                in_tag(call)
                    || super::calls::ID_MARKS.iter().any(|mark| mark.contains(token))
                    || matches!(arguments, Arguments::Tagged(argument) if in_tag(argument))
            }
        };
        let in_kind = match &self.kind {
            Kind::Calls(syntaxes) => syntaxes.iter().any(in_syntax),
            Kind::Header { to_self, to_user, to_tool } => {
                [to_self, to_user, to_tool].iter().any(|section| section.uses(token))
            }
            Kind::Reasoning | Kind::Content | Kind::WholeAnswer => false,
        };
        in_kind || self.open.contains(token) || self.close.iter().any(|close| close.contains(token))
    }
}
