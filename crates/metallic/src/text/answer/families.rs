//! How the published families of models mark the parts of an answer: the one table of their markers.

use super::section::{Arguments, Kind, Object, Section, Syntax, Tag};

/// The sections of all families, of which a model has those whose sign is in its chat template.
pub(super) const SECTIONS: &[Section] = &[
    // What most write: DeepSeek, Qwen, GLM …
    reasoning("<think>", &["</think>"]).if_there_is("</think>"),
    // What fine-tunes write in their place: Reflection, Sky-T1, OpenThinker …
    reasoning("<thought>", &["</thought>"]).if_there_is("</thought>"),
    reasoning("<reasoning>", &["</reasoning>"]).if_there_is("</reasoning>"),
    reasoning("<reflection>", &["</reflection>"]).if_there_is("</reflection>"),
    reasoning("<|begin_of_thought|>", &["<|end_of_thought|>"]),
    content("<|begin_of_solution|>", &["<|end_of_solution|>"]),
    reasoning("<|think|>", THINK_ENDS).if_there_is("<|/think|>"),
    // Hermes writes JSON, and so do Qwen and Granite. Qwen3-Coder and GLM have tags in the same section.
    calls("<tool_call>", &["</tool_call>"], &[HERMES, QWEN_CODER, GLM]),
    // Functionary, and Qwen3-Coder where it forgets the section.
    calls("<function=", &["</function>"], &[FUNCTIONARY, QWEN_CODER]),
    // Llama 3: a call is all of the answer, but for those of built-in tools.
    section("{\"name\"", &[], Kind::WholeAnswer).if_there_is("{\"name\": function name"),
    section("{\"type\": \"function\"", &[], Kind::WholeAnswer).if_there_is("{\"name\": function name"),
    calls("<|python_tag|>", &[], &[LLAMA, Syntax::Python]),
    // Firefunction.
    calls("functools", &[], JSON_LIST).if_there_is("functools["),
    // Mistral, the older and the newer way.
    reasoning("[THINK]", &["[/THINK]"]),
    calls("[TOOL_CALLS]", &[], &[MISTRAL_LIST, MISTRAL]),
    // DeepSeek R1 and V3, V3.1, V3.2, V4.
    calls("<｜tool▁calls▁begin｜>", &["<｜tool▁calls▁end｜>"], &[DEEPSEEK_V3, DEEPSEEK_V3_1]),
    calls("<｜DSML｜function_calls>", &["</｜DSML｜function_calls>"], &[DSML]).if_there_is("｜DSML｜"),
    calls("<｜DSML｜tool_calls>", &["</｜DSML｜tool_calls>"], &[DSML]).if_there_is("｜DSML｜"),
    // gpt-oss (harmony) and Muse, where a header says to whom a message goes.
    section("<|start|>", &["<|message|>"], HARMONY).if_there_is("<|channel|>"),
    section("<|channel|>", &["<|message|>"], HARMONY),
    section("<|start|>", &["<|message|>"], MUSE).if_there_is("to=self<|message|>"),
    // Gemma 4.
    reasoning("<|channel>thought", &["<channel|>"]).if_there_is("<|channel>"),
    calls("<|tool_call>", &["<tool_call|>"], &[Syntax::Gemma]),
    // Granite 3 and Phi 4.
    calls("<|tool_call|>", &["<|/tool_call|>"], JSON_LIST),
    // Cohere, from Command R+ on.
    calls("Action:\n```json", &["```"], COMMAND_R).if_there_is("Action:\\n```json"),
    calls("Action: ```json", &["```"], COMMAND_R).if_there_is("Action:\\n```json"),
    reasoning("<|START_THINKING|>", &["<|END_THINKING|>"]),
    content("<|START_RESPONSE|>", &["<|END_RESPONSE|>"]),
    content("<|START_TEXT|>", &["<|END_TEXT|>"]),
    calls("<|START_ACTION|>", &["<|END_ACTION|>"], COMMAND_R),
    // Kimi K2 and K3.
    calls("<|tool_calls_section_begin|>", &["<|tool_calls_section_end|>"], &[KIMI_K2]),
    reasoning("<|open|>think<|sep|>", &["<|close|>think<|sep|>"]).if_there_is("'<|open|>'"),
    content("<|open|>response<|sep|>", &["<|close|>response<|sep|>"]).if_there_is("'<|open|>'"),
    calls("<|open|>tools<|sep|>", &["<|close|>tools<|sep|>"], &[KIMI_K3]).if_there_is("'<|open|>'"),
    content("<|close|>message<|sep|>", &[]).if_there_is("'<|open|>'"),
    // MiniMax M2 and M3.
    calls("<minimax:tool_call>", &["</minimax:tool_call>"], &[MINIMAX_M2]),
    reasoning("<mm:think>", &["</mm:think>"]),
    calls("]<]minimax[>[<tool_call>", &["]<]minimax[>[</tool_call>"], &[MINIMAX_M3])
        .if_there_is("]<]minimax[>["),
    // MiniMax M1 and Apriel.
    calls("<tool_calls>", &["</tool_calls>"], JSON_EITHER),
    reasoning("<thinking>", &["</thinking>"]).if_there_is("</thinking>"),
    reasoning("Here are my reasoning steps:", &["[BEGIN FINAL RESPONSE]"]),
    // Nemotron 2.
    calls("<TOOLCALL>", &["</TOOLCALL>"], JSON_LIST),
    // Seed.
    reasoning("<seed:think>", &["</seed:think>"]),
    calls("<seed:tool_call>", &["</seed:tool_call>"], &[QWEN_CODER]),
    // LFM2.
    calls("<|tool_call_start|>", &["<|tool_call_end|>"], LFM2),
    calls("<|tool_call_start|>", &["<|tool_call_end|>"], LFM2).if_there_is("<|tool_response_start|>"),
    // Apertus.
    reasoning("<|inner_prefix|>", &["<|inner_suffix|>"]),
    calls("<|tools_prefix|>", &["<|tools_suffix|>"], APERTUS),
    // Hunyuan 3, whose template puts `opensource` into its markers.
    reasoning("<think:opensource>", &["</think:opensource>"]).if_there_is("<think{}>"),
    calls("<tool_calls:opensource>", &["</tool_calls:opensource>"], &[HUNYUAN]).if_there_is("<tool_calls{}>"),
    // GigaChat 3 and 3.1.
    calls("<|message_sep|>\n\nfunction call<|role_sep|>", &["<|message_sep|>"], JSON)
        .if_there_is("'function call'"),
    calls("<|function_call|>", &["<|message_sep|>"], JSON),
    // MiniCPM 5.
    calls("<function name=\"", &["</function>"], &[MINICPM]),
    // Solar.
    reasoning("<|think|>", SOLAR_ENDS).if_there_is("<|tool_calls|>"),
    content("<|content|>", &["<|end|>"]).if_there_is("<|tool_calls|>"),
    calls("<|tool_calls|>", &["<|calls|>"], &[SOLAR]),
];

/// `{"name": …, "arguments": …}`, one to a section, or in a list.
const OBJECT: Object =
    Object { name: Some("name"), arguments: "arguments", ids: [None; 2], in_list: Some(false) };
const HERMES: Syntax = Syntax::Json(OBJECT);
const JSON: &[Syntax] = &[HERMES];
const JSON_LIST: &[Syntax] = &[Syntax::Json(Object { in_list: Some(true), ..OBJECT })];
const JSON_EITHER: &[Syntax] = &[Syntax::Json(Object { in_list: None, ..OBJECT })];
const LLAMA: Syntax = Syntax::Json(Object { arguments: "parameters", ..OBJECT });
const MISTRAL_LIST: Syntax = Syntax::Json(Object { ids: [None, Some("id")], in_list: Some(true), ..OBJECT });
const COMMAND_R: &[Syntax] = &[Syntax::Json(Object {
    name: Some("tool_name"),
    arguments: "parameters",
    ids: [Some("tool_call_id"), None],
    in_list: Some(true),
})];
const APERTUS: &[Syntax] = &[Syntax::Json(Object { name: None, in_list: Some(true), ..OBJECT })];
const LFM2: &[Syntax] = &[Syntax::Python, HERMES];

const FUNCTIONARY: Syntax = with_json(tag("<function=", ">", "", "</function>"));
const MISTRAL: Syntax = with_json(tag("[TOOL_CALLS]", "[ARGS]", "", ""));
const DEEPSEEK_V3: Syntax = with_json(tag(
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    "\n",
    "```json\n",
    "\n```<｜tool▁call▁end｜>",
));
const DEEPSEEK_V3_1: Syntax =
    with_json(tag("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "", "<｜tool▁call▁end｜>"));
const KIMI_K2: Syntax =
    with_json(tag("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "", "<|tool_call_end|>"));
const SOLAR: Syntax = with_json(tag("<|tool_call:begin|>", "<|tool_call:args|>", "", "<|tool_call:end|>"));

/// Where templates that do not say it let it end, with Solar's ends.
const THINK_ENDS: &[&str] = &["<|/think|>", "</think>", "<|end|><|begin|>assistant", "<|end|>"];
const SOLAR_ENDS: &[&str] = &["<|end|><|begin|>assistant", "<|end|>"];

const QWEN_CODER: Syntax =
    with_tags(tag("<function=", ">", "", "</function>"), tag("<parameter=", ">", "", "</parameter>"));
const GLM: Syntax = with_tags(
    tag("<tool_call>", "\n", "", "</tool_call>"),
    tag("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
);
const DSML: Syntax = with_tags(
    tag("<｜DSML｜invoke name=\"", "\"", ">", "</｜DSML｜invoke>"),
    tag("<｜DSML｜parameter name=\"", "\"", ">", "</｜DSML｜parameter>"),
);
const KIMI_K3: Syntax = with_tags(
    tag("<|open|>call tool=\"", "\"", "<|sep|>", "<|close|>call<|sep|>"),
    tag("<|open|>argument key=\"", "\"", "<|sep|>", "<|close|>argument<|sep|>"),
);
const MINIMAX_M2: Syntax = with_tags(
    tag("<invoke name=\"", "\"", ">", "</invoke>"),
    tag("<parameter name=\"", "\"", ">", "</parameter>"),
);
const MINIMAX_M3: Syntax = with_tags(
    tag("]<]minimax[>[<invoke name=\"", "\"", ">", "]<]minimax[>[</invoke>"),
    tag("]<]minimax[>[<", ">", "", "]<]minimax[>[</{}>"),
);
const HUNYUAN: Syntax = with_tags(
    tag("<tool_call:opensource>", "<tool_sep:opensource>", "", "</tool_call:opensource>"),
    tag("<arg_key:opensource>", "</arg_key:opensource>", "<arg_value:opensource>", "</arg_value:opensource>"),
);
const MINICPM: Syntax = with_tags(
    tag("<function name=\"", "\"", ">", "</function>"),
    tag("<param name=\"", "\"", ">", "</param>"),
);
const ATEM: Syntax = with_tags(
    tag("<atem:invoke name=\"", "\"", ">", "</atem:invoke>"),
    tag("<atem:parameter name=\"", "\"", ">", "</atem:parameter>"),
);

const HARMONY_ENDS: &[&str] = &["<|end|>", "<|return|>", "<|call|>"];
const HARMONY: Kind = Kind::Header {
    to_self: &reasoning("", HARMONY_ENDS),
    to_user: &content("", HARMONY_ENDS),
    to_tool: &calls("", HARMONY_ENDS, &[with_json(tag("to=", "<|", "<|message|>", ""))]),
};

const MUSE_ENDS: &[&str] = &["<|eom|>", "<|eot|>"];
const MUSE: Kind = Kind::Header {
    to_self: &reasoning("", MUSE_ENDS),
    to_user: &content("", MUSE_ENDS),
    to_tool: &calls("", MUSE_ENDS, &[ATEM]),
};

/// A section of models whose templates contain its beginning.
const fn section(open: &'static str, close: &'static [&'static str], kind: Kind) -> Section {
    Section { sign: open, open, close, kind }
}

const fn reasoning(open: &'static str, close: &'static [&'static str]) -> Section {
    section(open, close, Kind::Reasoning)
}

const fn content(open: &'static str, close: &'static [&'static str]) -> Section {
    section(open, close, Kind::Content)
}

const fn calls(open: &'static str, close: &'static [&'static str], syntaxes: &'static [Syntax]) -> Section {
    section(open, close, Kind::Calls(syntaxes))
}

impl Section {
    /// The section for models whose templates contain something else.
    const fn if_there_is(self, sign: &'static str) -> Section {
        Section { sign, ..self }
    }
}

/// A name and a JSON object.
const fn with_json(call: Tag) -> Syntax {
    Syntax::Tagged { call, arguments: Arguments::Json }
}

/// A name and arguments that have tags of their own.
const fn with_tags(call: Tag, argument: Tag) -> Syntax {
    Syntax::Tagged { call, arguments: Arguments::Tagged(argument) }
}

const fn tag(
    open: &'static str,
    name_end: &'static str,
    value_after: &'static str,
    close: &'static str,
) -> Tag {
    Tag { open, name_end, value_after, close }
}
