//! A loaded model that answers on standard output: what `run` and `chat` share.

use std::path::Path;
use std::sync::Arc;

use metallic::engine::{self, Grammar, Grammars, RequestId, Stats};
use metallic::sampling::SamplingParams;
use metallic::text::{AnswerFormat, AnswerSplitter, EncodeOptions, Message, RenderOptions, Tokenizer};
use metallic::{Engine, Event, FinishReason, GgufFile, Request};

use crate::args::{AnswerArgs, EngineArgs, RateArgs, SessionArgs};
use crate::budget;
use crate::chat_template;
use crate::cost::{Cost, Meter};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::catalogue::Entry;
use crate::fetch::{Fetcher, ModelName};
use crate::gpu::{self, GpuCounters};
use crate::input::{self, Limit};
use crate::interrupt::Heed;
use crate::model_file::{self, Planned, SMALLER_CONTEXT, VOID, kind_of};
use crate::settings::Settings;
use crate::speculation::{self, Guessing};
use crate::speech::{Form, Speech};
use crate::terminal::{Style, human_bytes};

/// A model whose weights are not read yet: what is wrong with a question is told before they are.
pub(crate) struct Opened<'a> {
    file: GgufFile,
    tokenizer: Tokenizer,
    setup: Setup<'a>,
}

/// A model ready to answer.
pub(crate) struct Session<'a> {
    engine: Engine,
    gpu_counters: GpuCounters,
    setup: Setup<'a>,
    settings: Settings,
    /// What the settings make of it.
    sampling: SamplingParams,
    form: Option<engine::Form>,
}

/// How a model is talked with.
struct Setup<'a> {
    args: &'a SessionArgs,
    fetcher: &'a Fetcher<'a>,
    name: ModelName,
    template: Option<chat_template::Chosen>,
    /// Of texts that it is given: of the budget before the model takes it.
    text_limit: Limit,
    /// Of a model with a short name.
    entry: Option<&'static Entry>,
}

/// An answer that has ended.
pub(crate) struct Answer {
    /// All that was said.
    pub(crate) said: metallic::text::Answer,
    /// Why it ended.
    pub(crate) reason: FinishReason,
    pub(crate) stats: Stats,
    cost: Cost,
}

/// What a model goes on with, and how to read what it says.
pub(crate) struct Prompt {
    tokens: Vec<u32>,
    splitter: AnswerSplitter,
    /// Control tokens that mark parts of the answer.
    markers: Vec<u32>,
}

impl Prompt {
    /// What it has.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

impl<'a> Opened<'a> {
    /// Finds and opens the model.
    pub(crate) fn open(name: &ModelName, args: &'a SessionArgs, fetcher: &'a Fetcher<'a>) -> Result<Self> {
        let path = fetcher.locate(name)?.path;
        let file = model_file::open(&path)?;
        let tokenizer = model_file::tokenizer(&file)?;
        let template = chat_template::choose(&file, &path, args.talk.chat_template.as_deref())?;
        let text_limit = Limit::within(&args.engine.compute);
        let entry = match name {
            ModelName::Catalogue(entry) => Some(*entry),
            _ => None,
        };
        Ok(Self {
            file,
            tokenizer,
            setup: Setup { args, fetcher, name: name.clone(), template, text_limit, entry },
        })
    }

    /// The model's file.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What tells the model from others.
    pub(crate) fn digest(&self) -> String {
        self.file.digest()
    }

    /// Whether the model was made for conversation.
    pub(crate) fn has_template(&self) -> bool {
        self.setup.template.is_some()
    }

    /// Makes sure that the template takes a conversation.
    pub(crate) fn check_turn(&self, messages: &[Message], tools: &[serde_json::Value]) -> Result<()> {
        self.setup.render(&self.tokenizer, messages, tools).map(drop)
    }

    /// The message that opens a conversation: the user's, or the one that comes with a short name.
    pub(crate) fn opening(&self) -> Option<Message> {
        self.setup.opening()
    }

    /// Loads the model. What is known of what will be asked first is refused before, if it can't fit.
    pub(crate) fn load(self, first: &str) -> Result<Session<'a>> {
        let Self { file, tokenizer, setup } = self;
        let args = setup.args;
        let settings = Settings { answer: args.answer.clone(), sampling: args.sampling.clone() };
        let sampling = sampling(&settings, setup.entry, &tokenizer)?;
        let form = form(&settings.answer, &tokenizer)?;
        let budget = budget::to_run_in(&args.engine.compute);
        let (given, terminal) = (RateArgs::default(), setup.fetcher.terminal);
        let draft = speculation::draft_file(&args.speculation, setup.fetcher)?;
        let guessing = Guessing::plan(
            &args.speculation,
            draft.as_deref(),
            &args.engine,
            budget,
            setup.fetcher.terminal,
        )?;
        let engine_args = EngineArgs { guesses: guessing.looks_up(), ..args.engine.clone() };
        let budget = guessing.leaves(budget);
        let planned = Planned::new(file, &engine_args, budget, SMALLER_CONTEXT, &given, terminal)?;
        model_file::refuse_too_long(&tokenizer, first, planned.plan.request.capacity.n_ctx)?;
        let gpu_counters = planned.gpu_counters.clone();
        let mut engine = Engine::new(planned.load(&args.engine, terminal)?, tokenizer);
        guessing.begin(&mut engine, terminal)?;
        if let Some(Entry { name, temperature, system, .. }) = setup.entry {
            tracing::info!(
                "{name} has its own defaults: temperature {temperature}, system message {system:?}"
            );
        }
        Ok(Session { engine, gpu_counters, setup, settings, sampling, form })
    }
}

impl Setup<'_> {
    /// See [`Opened::opening`].
    fn opening(&self) -> Option<Message> {
        let system = self.args.talk.system.as_deref();
        let text = system.or(self.entry.and_then(|entry| entry.system));
        text.map(|text| Message::new("system", text))
    }

    /// The text that a conversation is to the model, and its template.
    fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[serde_json::Value],
    ) -> Result<(String, &chat_template::Chosen)> {
        let Some(template) = &self.template else {
            return Err(Failure::new(Kind::BadModel, format!("{} has no chat template", self.name)));
        };
        let name_of = |id: Option<u32>| {
            let piece = id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
            String::from_utf8_lossy(piece).into_owned()
        };
        let options = RenderOptions {
            bos_token: name_of(tokenizer.bos()),
            eos_token: name_of(tokenizer.eos()),
            tools: tools.to_vec(),
            now: Some(jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::system()).datetime()),
            ..RenderOptions::default()
        };
        let text = template.render(messages, &options)?;
        let without_tools = RenderOptions { tools: Vec::new(), ..options };
        if !tools.is_empty() && template.render(messages, &without_tools).is_ok_and(|other| other == text) {
            let what = "the chat template has no place for tools, so the model would not know of them";
            return Err(Failure::new(Kind::BadModel, what).advice("`--chat-template` uses another"));
        }
        Ok((text, template))
    }
}

impl<'a> Session<'a> {
    /// The same with the model loaded again, as is needed when its GPU was lost.
    pub(crate) fn reload(self) -> Result<Self> {
        let Self { engine, setup, settings, sampling, form, .. } = self;
        // What it takes of memory first.
        drop(engine);
        let session = Opened::open(&setup.name, setup.args, setup.fetcher)?.load("")?;
        Ok(Self { settings, sampling, form, ..session })
    }

    /// What answers.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The model, as the user calls it.
    pub(crate) fn name(&self) -> &ModelName {
        &self.setup.name
    }

    /// Tokens that prompt and answer may have together.
    pub(crate) fn n_ctx(&self) -> usize {
        self.engine.model().n_ctx()
    }

    /// Tokens that an answer may have, if it is not as many as the context holds.
    pub(crate) fn max_tokens(&self) -> Option<usize> {
        usize::try_from(self.settings.answer.n_predict).ok()
    }

    /// The longest text that it is given.
    pub(crate) fn text_limit(&self) -> Limit {
        self.setup.text_limit
    }

    /// How answers are made.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how answers are made from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut settings = self.settings.clone();
        settings.set(name, value)?;
        let form = form(&settings.answer, self.engine.tokenizer())?;
        self.sampling = sampling(&settings, self.setup.entry, self.engine.tokenizer())?;
        self.form = form;
        self.settings = settings;
        Ok(())
    }

    /// See [`Opened::opening`].
    pub(crate) fn opening(&self) -> Option<Message> {
        self.setup.opening()
    }

    /// The tokens that make the model go on with a text.
    pub(crate) fn continuation(&self, text: &str) -> Result<Prompt> {
        model_file::refuse_too_long(self.engine.tokenizer(), text, self.n_ctx())?;
        // The user's own text: special tokens in it are meant as such.
        let options = EncodeOptions { add_bos: true, add_eos: true, parse_special: true };
        let tokens = model_file::encode(self.engine.tokenizer(), text, options)?;
        Ok(Prompt { tokens, splitter: AnswerFormat::default().splitter(text), markers: Vec::new() })
    }

    /// What makes the model say the next message of a conversation, in which it may call tools.
    pub(crate) fn turn(&self, messages: &[Message], tools: &[serde_json::Value]) -> Result<Prompt> {
        let tokenizer = self.engine.tokenizer();
        let newest = messages.last().and_then(|message| message.content.as_ref()?.as_str());
        model_file::refuse_too_long(tokenizer, newest.unwrap_or_default(), self.n_ctx())?;
        let (text, template) = self.setup.render(tokenizer, messages, tools)?;
        let format = template.answer_format();
        let (splitter, markers) = (format.splitter(&text), format.control_tokens(tokenizer, &text));
        // Some templates write BOS themselves, others leave it to the tokenizer. What follows is the model's to say.
        let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
        let tokens = model_file::encode(tokenizer, &text, options)?;
        Ok(Prompt { tokens, splitter, markers })
    }

    /// Generates an answer and writes it to standard output as it comes. Ctrl-C cancels it. When the context is full,
    /// `make_room` is told how many tokens the answer has, and may give a prompt for it to go on after.
    pub(crate) fn answer(
        &mut self,
        prompt: Prompt,
        form: Form,
        make_room: &mut dyn FnMut(&Self, usize) -> Option<Prompt>,
    ) -> Result<Answer> {
        let request = Request {
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens(),
            stop: self.settings.answer.stop.clone(),
            ignore_eos: self.settings.answer.ignore_eos,
            exact: self.settings.answer.exact,
            form: self.form.clone(),
            control_tokens: prompt.markers,
            logprobs: form.logprobs(),
            ..Request::new(prompt.tokens)
        };
        let n_prompt = request.prompt.len() as u64;
        let id = self.engine.submit(request).map_err(|error| cannot_answer(Arc::new(error)))?;
        let terminal = self.setup.fetcher.terminal;
        let isa = self.setup.args.engine.compute.isa();
        let devices = self.engine.model().devices();
        let reasoning = self.setup.args.talk.reasoning;
        let mut speech = Speech::new(form, isa, devices, terminal, reasoning, prompt.splitter);
        let reading = terminal.token_count("reading the prompt", n_prompt, self.gpu_counters.clone());
        let meter = Meter::start(self.engine.model());
        let interrupt = self.setup.fetcher.interrupt.heed();
        let mut has_begun = false;
        let end = loop {
            let mut events = Vec::new();
            if interrupt.is_pressed() {
                self.engine.cancel(id, &mut |event| events.push(event));
            } else {
                events = self.step(id, &interrupt, make_room)?;
            }
            match self.engine.stats(id) {
                Some(stats) if stats.n_generated == 0 => {
                    reading.set_position((stats.n_cached + stats.n_read) as u64);
                }
                _ if !reading.is_finished() => reading.finish_and_clear(),
                _ => {}
            }
            has_begun |= matches!(events.first(), Some(Event::Token { .. }));
            if let Some(end) = tell(events, &mut speech, self.engine.tokenizer())? {
                break end;
            }
        };
        let cost = meter.stop(self.engine.model());
        let said = speech.finish(end.as_ref().ok().map(|(reason, stats)| (*reason, stats)))?;
        let (reason, stats) = end.map_err(|error| {
            let failure = cannot_answer(error);
            let is_void = has_begun && failure.kind() == Kind::ModelChanged;
            failure.maybe_advice(is_void.then(|| VOID.to_owned()))
        })?;
        interrupt.check_end()?;
        Ok(Answer { said, reason, stats, cost })
    }

    /// Has the engine take a step of a request, with room for it.
    fn step(
        &mut self,
        id: RequestId,
        interrupt: &Heed<'_>,
        make_room: &mut dyn FnMut(&Self, usize) -> Option<Prompt>,
    ) -> Result<Vec<Event>> {
        if self.engine.room(id) == Some(0)
            && let Some(n_said) = self.engine.stats(id).map(|stats| stats.n_generated)
            && let Some(prompt) = make_room(self, n_said)
        {
            let replaced = self.engine.replace_prompt(id, prompt.tokens);
            replaced.map_err(|error| cannot_answer(Arc::new(error)))?;
        }
        let mut events = Vec::new();
        self.engine.step_unless(&|_| interrupt.is_pressed(), &mut |event| events.push(event));
        Ok(events)
    }

    /// Tells on standard error that an answer was cut, and what it cost, with `--stats` also what it took of the disk
    /// and of memory.
    pub(crate) fn note_cost(&self, answer: &Answer) {
        if answer.reason == FinishReason::MaxTokens {
            let n_predict = self.settings.answer.n_predict;
            self.setup
                .fetcher
                .terminal
                .note(format_args!("the answer is cut: -n {n_predict} allows no more tokens"));
        }
        let Stats { n_read, n_cached, n_generated, .. } = answer.stats;
        let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!(" at {rate:.1} tokens/s"));
        let mut line = format!("prefill {n_read} tokens{}", rate(answer.stats.prefill_rate()));
        if n_cached > 0 {
            line.push_str(&format!(" ({n_cached} more were cached)"));
        }
        line.push_str(&format!(", decode {n_generated} tokens{}", rate(answer.stats.decode_rate())));
        if let Some(stats) = answer.cost.stream {
            let (bytes, waited) = (human_bytes(stats.read_bytes), stats.waited.as_secs_f64());
            line.push_str(&format!(", {bytes} of weights swapped in, {waited:.1} s waited for them"));
        }
        if let Some(bytes) = answer.cost.peak_bytes {
            line.push_str(&format!(", peak memory {}", human_bytes(bytes)));
        }
        let mut details = Vec::new();
        if self.settings.answer.stats {
            details.push(format!("computed by: {}", self.engine.model().description()));
            details.extend(speculation::line(&answer.stats));
            details.extend(answer.cost.lines());
        }
        for line in std::iter::once(line).chain(details) {
            self.setup.fetcher.terminal.note(self.setup.fetcher.terminal.paint_err(Style::Dim, line));
        }
    }

    /// The failure of an answer that the context had no room for.
    pub(crate) fn context_full(&self) -> Failure {
        let n_ctx = self.n_ctx();
        Failure::new(Kind::General, format!("the answer is cut: the context of {n_ctx} tokens is full"))
            .advice("choose a larger one with -c")
    }
}

/// How tokens are chosen: as the flags say, or else as comes with a short name.
fn sampling(settings: &Settings, entry: Option<&Entry>, tokenizer: &Tokenizer) -> Result<SamplingParams> {
    let mut defaults = SamplingParams::default();
    if let Some(entry) = entry {
        defaults.temperature = entry.temperature;
    }
    settings.sampling.params(defaults, tokenizer)
}

/// The form that answers are to have.
fn form(args: &AnswerArgs, tokenizer: &Tokenizer) -> Result<Option<engine::Form>> {
    let Some(grammar) = grammar(args)? else { return Ok(None) };
    let compiled = Grammars::new(tokenizer).and_then(|grammars| grammars.compile(&grammar));
    compiled.map(Some).map_err(|error| Failure::of(Kind::Usage, error))
}

fn grammar(args: &AnswerArgs) -> Result<Option<Grammar>> {
    if let Some(regex) = &args.regex {
        return Ok(Some(Grammar::Regex(regex.clone())));
    }
    if let Some(path) = &args.grammar {
        return Ok(Some(Grammar::Gbnf(input::file(path, Limit::TEXT)?)));
    }
    let Some(given) = &args.json_schema else { return Ok(None) };
    // An object or a truth value can be no file's name that anyone has.
    let is_schema = given.trim_start().starts_with('{') || ["true", "false"].contains(&given.trim());
    let text = if is_schema { given.clone() } else { input::file(Path::new(given), Limit::TEXT)? };
    let schema = serde_json::from_str(&text).map_err(|error| {
        let origin = if is_schema { "--json-schema" } else { given };
        Failure::new(Kind::Usage, format!("{origin} is not JSON")).because(error)
    })?;
    Ok(Some(Grammar::JsonSchema(schema)))
}

/// How a request ended.
type End = std::result::Result<(FinishReason, Stats), Arc<metallic::Error>>;

/// Tells what happened to a request; its end, if it has ended.
fn tell(events: Vec<Event>, speech: &mut Speech<'_>, tokenizer: &Tokenizer) -> Result<Option<End>> {
    let mut end = None;
    for event in events {
        match event {
            Event::Token { token, logprobs, .. } => speech.token(token, logprobs.as_ref(), tokenizer)?,
            Event::Text { text, .. } => speech.push(&text)?,
            Event::Finished { reason, stats, .. } => end = Some(Ok((reason, stats))),
            Event::Failed { error, .. } => end = Some(Err(error)),
        }
    }
    Ok(end)
}

fn cannot_answer(error: Arc<metallic::Error>) -> Failure {
    let advice = gpu::advice(&error).map(str::to_owned);
    Failure::new(kind_of(&error), "can't answer").because(error).maybe_advice(advice)
}
