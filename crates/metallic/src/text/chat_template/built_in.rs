//! Templates of well-known formats, for files that carry none.

/// Names, as llama.cpp has them where it has the format, and templates.
pub(super) const TEMPLATES: [(&str, &str); 5] =
    [("chatml", CHATML), ("gemma", GEMMA), ("llama3", LLAMA3), ("mistral", MISTRAL), ("phi3", PHI3)];

/// Qwen, SmolLM, Yi, Hermes and many others.
const CHATML: &str = "\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}";

/// Gemma 1 to 3, which have no system message: it goes before what the user says first.
const GEMMA: &str = "\
{{ bos_token }}{% set ns = namespace(system='') %}
{% for m in messages %}
{% if m.role == 'system' %}
{% set ns.system = m.content | trim + '\\n\\n' %}
{% else %}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ ns.system if m.role == 'user' }}{{ m.content | trim }}<end_of_turn>
{% if m.role == 'user' %}{% set ns.system = '' %}{% endif %}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}<start_of_turn>model
{% endif %}";

/// Llama 3.
const LLAMA3: &str = "\
{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}";

/// Mistral with the tokenizer of Nemo, which has the system message before what the user says last.
const MISTRAL: &str = "\
{{ bos_token }}{% set ns = namespace(system='') %}
{% for m in messages %}
{% if m.role == 'system' %}{% set ns.system = m.content + '\\n\\n' %}
{% elif m.role == 'user' %}[INST]{{ ns.system if loop.last }}{{ m.content }}[/INST]
{%- else %}{{ m.content }}{{ eos_token }}
{%- endif %}
{% endfor %}";

/// Phi 3 and 3.5.
const PHI3: &str = "\
{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}
{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif %}";
