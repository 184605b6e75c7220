//! Several models within one budget: they come when they are asked for, and go when another needs their room.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metallic_server::{Description, Library, Listed, Outline, Progress, Refused, Terms, Wish};
use serde_json::json;

use super::*;

/// Bytes that each model says it takes.
const BYTES: u64 = 100;

/// Copies of the tiny model under some names.
#[derive(Clone)]
struct Shelf {
    names: Arc<Mutex<Vec<String>>>,
    n_loaded: Arc<AtomicUsize>,
    n_most: Arc<AtomicUsize>,
}

/// Counts for as long as a model is in memory.
struct InMemory(Arc<AtomicUsize>);

impl Drop for InMemory {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shelf {
    fn new(names: &[&str]) -> Self {
        let names = Arc::new(Mutex::new(names.iter().map(|name| (*name).to_owned()).collect()));
        Self { names, n_loaded: Arc::default(), n_most: Arc::default() }
    }

    fn server(&self, terms: Terms) -> Router {
        router(Service::of_library(self.clone(), terms).unwrap(), Access::default())
    }
}

impl Library for Shelf {
    fn list(&self) -> Result<Vec<Listed>, Refused> {
        let names = self.names.lock().unwrap();
        Ok(names.iter().map(|name| Listed { name: name.clone(), n_bytes: 7 }).collect())
    }

    fn describe(&self, _: &str) -> Result<Description, Refused> {
        let (architecture, quantization) = ("llama".to_owned(), "Q4_0".to_owned());
        let n_params = 7_240_000_000;
        Ok(Description {
            architecture,
            quantization,
            n_params,
            context_length: 4096,
            ..Description::default()
        })
    }

    fn outline(&self, _: &str, wish: &Wish, _: bool) -> Result<Outline, Refused> {
        let ram_bytes = wish.ram_bytes.unwrap_or(BYTES).min(BYTES);
        if ram_bytes < BYTES / 2 {
            let floor_bytes = Some(BYTES / 2);
            return Err(Refused { floor_bytes, ..Refused::because("it takes at least 50 bytes") });
        }
        Ok(Outline { ram_bytes, n_ctx: N_CTX, ..Outline::default() })
    }

    fn load(&self, name: &str, wish: &Wish, progress: &Progress) -> Result<Hosted, Refused> {
        progress.set(1, 2);
        if name == "large" {
            std::thread::sleep(Duration::from_millis(300));
        }
        if name == "broken" {
            return Err(Refused::because("it is broken"));
        }
        let n_loaded = self.n_loaded.fetch_add(1, Ordering::SeqCst) + 1;
        self.n_most.fetch_max(n_loaded, Ordering::SeqCst);
        let hosted = Hosted::new(name, engine(2), ChatTemplate::built_in("chatml"));
        Ok(hosted.outline(self.outline(name, wish, false)?).keeping(InMemory(Arc::clone(&self.n_loaded))))
    }

    fn pull(&self, name: &str, progress: &Progress) -> Result<(), Refused> {
        if name == "nowhere" {
            return Err(Refused {
                message: "no model is called nowhere".to_owned(),
                is_unknown: true,
                floor_bytes: None,
            });
        }
        progress.set(3, 4);
        std::thread::sleep(Duration::from_millis(300));
        self.names.lock().unwrap().push(name.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Refused> {
        self.names.lock().unwrap().retain(|other| other != name);
        Ok(())
    }
}

fn question(model: &str, max_tokens: usize) -> Request<Body> {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    post(
        "/v1/chat/completions",
        json!({ "model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens }),
    )
}

/// States of the models, in their order.
async fn states(server: &Router) -> Vec<String> {
    let state = send(server, Request::get("/metallic/state").body(Body::empty()).unwrap()).await;
    let state = object(state, StatusCode::OK).await;
    let models = state["models"].as_array().unwrap();
    models.iter().map(|model| model["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn models_come_when_they_are_asked_for_and_the_idlest_makes_room() {
    let shelf = Shelf::new(&["a", "b", "c"]);
    let server = shelf.server(Terms { ram_bytes: Some(2 * BYTES), ..Terms::default() });
    assert_eq!(states(&server).await, ["unloaded"; 3]);
    let expected = expected(&rendered("Hi"), 4);
    for (model, after) in [
        ("a", ["loaded", "unloaded", "unloaded"]),
        ("b", ["loaded", "loaded", "unloaded"]),
        ("a", ["loaded", "loaded", "unloaded"]),
        ("c:latest", ["loaded", "unloaded", "loaded"]),
        ("", ["loaded", "unloaded", "loaded"]),
    ] {
        let answer = object(send(&server, question(model, 4)).await, StatusCode::OK).await;
        assert_eq!(answer["choices"][0]["message"]["content"], expected, "{model}");
        assert_eq!(states(&server).await, after, "after {model}");
    }
    assert_eq!(shelf.n_most.load(Ordering::SeqCst), 2, "one has gone before another comes");
    let listed = send(&server, Request::get("/v1/models").body(Body::empty()).unwrap()).await;
    assert_eq!(object(listed, StatusCode::OK).await["data"].as_array().unwrap().len(), 3);
    let running = send(&server, Request::get("/api/ps").body(Body::empty()).unwrap()).await;
    let running = object(running, StatusCode::OK).await;
    assert_eq!((&running["models"][1]["name"], &running["models"][1]["size"]), (&json!("c"), &json!(BYTES)));
    object(send(&server, question("d", 1)).await, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_model_is_told_of_without_being_loaded() {
    let shelf = Shelf::new(&["a", "b"]);
    let server = shelf.server(Terms { ram_bytes: Some(BYTES), ..Terms::default() });
    object(send(&server, question("a", 1)).await, StatusCode::OK).await;
    let shown = send(&server, post("/api/show", json!({"model": "b"}))).await;
    let shown = object(shown, StatusCode::OK).await;
    let expected = json!({
        "format": "gguf", "family": "llama", "families": ["llama"], "parent_model": "",
        "parameter_size": "7.2B", "quantization_level": "Q4_0",
    });
    assert_eq!(shown["details"], expected);
    assert_eq!(shown["model_info"]["llama.context_length"], 4096);
    assert_eq!(states(&server).await, ["loaded", "unloaded"]);
}

#[tokio::test]
async fn loading_is_no_part_of_the_wait_for_a_first_token() {
    let limits = Limits { first_token: Some(Duration::from_millis(200)), ..Limits::default() };
    let service = Service::of_library(Shelf::new(&["large"]), Terms::default()).unwrap();
    let server = router(service, Options { limits, ..Options::from(Access::default()) });
    object(send(&server, question("large", 4)).await, StatusCode::OK).await;
}

/// Where there is room for one, whoever keeps it busy has to make room for the other in the end.
#[tokio::test(flavor = "multi_thread")]
async fn no_model_waits_for_ever_while_another_is_busy() {
    let shelf = Shelf::new(&["a", "b"]);
    let limits = Limits { first_token: Some(Duration::from_secs(1)), ..Limits::default() };
    let service = Service::of_library(shelf, Terms { ram_bytes: Some(BYTES), ..Terms::default() }).unwrap();
    let server = router(service.clone(), Options::from(Access::default()));
    let hasty = router(service, Options { limits, ..Options::from(Access::default()) });
    let is_over = Arc::new(AtomicUsize::new(0));
    let mut busy = Vec::new();
    for _ in 0..3 {
        let (server, is_over) = (server.clone(), Arc::clone(&is_over));
        busy.push(tokio::spawn(async move {
            while is_over.load(Ordering::SeqCst) == 0 {
                object(send(&server, question("a", 40)).await, StatusCode::OK).await;
            }
        }));
    }
    while states(&server).await[0] != "loaded" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = object(send(&hasty, question("b", 4)).await, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(error["error"]["message"].as_str().unwrap().contains("within 1 second"), "{error}");
    let asked = send(&server, question("b", 4));
    let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("b is answered");
    object(answer, StatusCode::OK).await;
    is_over.store(1, Ordering::SeqCst);
    for one in busy {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn many_who_ask_at_once_have_one_model_loaded() {
    let shelf = Shelf::new(&["a", "b"]);
    let server = shelf.server(Terms { ram_bytes: Some(BYTES), ..Terms::default() });
    let expected = expected(&rendered("Hi"), 3);
    let asked = (0..12).map(|i| {
        let (server, expected) = (server.clone(), expected.clone());
        tokio::spawn(async move {
            let request = question(if i % 2 == 0 { "a" } else { "b" }, 3);
            let answer = object(send(&server, request).await, StatusCode::OK).await;
            assert_eq!(answer["choices"][0]["message"]["content"], expected);
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    assert_eq!(shelf.n_most.load(Ordering::SeqCst), 1);
}

/// An answer under way keeps its model, and the other waits; unless it may be loaded with less.
#[tokio::test]
async fn a_busy_model_is_waited_for_or_another_is_smaller() {
    for shrinks in [false, true] {
        let shelf = Shelf::new(&["a", "b"]);
        let server = shelf.server(Terms { ram_bytes: Some(BYTES + BYTES / 2), shrinks, ..Terms::default() });
        // So many that they take longer than it takes to ask another.
        let endless = json!({ "model": "a", "prompt": "x", "stream": true, "ignore_eos": true });
        let mut bodies = Vec::new();
        for _ in 0..60 {
            bodies.push(send(&server, post("/completion", &endless)).await.into_body());
        }
        let other = object(send(&server, question("b", 2)).await, StatusCode::OK).await;
        assert_eq!(other["choices"][0]["finish_reason"], "length");
        let after = states(&server).await;
        assert_eq!(after, if shrinks { ["loaded", "loaded"] } else { ["unloaded", "loaded"] });
        // Whatever was done for it, the answers are whole.
        for body in bodies {
            let whole = body.collect().await.unwrap().to_bytes();
            assert!(String::from_utf8(whole.to_vec()).unwrap().contains("\"stop\":true"));
        }
    }
}

#[tokio::test]
async fn a_model_that_can_not_be_loaded_says_why_and_others_go_on() {
    let shelf = Shelf::new(&["broken", "a"]);
    let server = shelf.server(Terms { ram_bytes: Some(BYTES), ..Terms::default() });
    let error = object(send(&server, question("broken", 1)).await, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert_eq!(error["error"]["message"], "it is broken");
    assert_eq!(states(&server).await, ["failed", "unloaded"]);
    object(send(&server, question("a", 1)).await, StatusCode::OK).await;
    let plan = json!({ "model": "a", "ram": 10 });
    let error =
        object(send(&server, post("/metallic/plan", plan)).await, StatusCode::INSUFFICIENT_STORAGE).await;
    assert_eq!(error["error"]["floor_bytes"], 50);
    assert_eq!(error["error"]["message"], "it takes at least 50 bytes");
    let plan = object(
        send(&server, post("/metallic/plan", json!({ "model": "a", "ram": 60 }))).await,
        StatusCode::OK,
    );
    assert_eq!(plan.await["ram_bytes"], 60);
}

#[tokio::test]
async fn only_a_managed_server_loads_unloads_brings_and_removes() {
    let shelf = Shelf::new(&["a"]);
    let terms = Terms { ram_bytes: Some(BYTES), ..Terms::default() };
    let model = json!({ "model": "a" });
    let delete = || Request::delete("/api/delete").body(Body::from(model.to_string())).unwrap();
    let closed = shelf.server(terms);
    for path in ["/metallic/load", "/metallic/unload", "/api/pull"] {
        object(send(&closed, post(path, &model)).await, StatusCode::FORBIDDEN).await;
    }
    object(send(&closed, delete()).await, StatusCode::FORBIDDEN).await;

    let server = shelf.server(Terms { manages: true, ..terms });
    object(send(&server, post("/metallic/load", json!({ "model": "a", "ram": 60 }))).await, StatusCode::OK)
        .await;
    let running = send(&server, Request::get("/api/ps").body(Body::empty()).unwrap()).await;
    assert_eq!(object(running, StatusCode::OK).await["models"][0]["size"], 60);
    object(send(&server, post("/metallic/unload", &model)).await, StatusCode::OK).await;
    assert_eq!(
        (states(&server).await, shelf.n_loaded.load(Ordering::SeqCst)),
        (vec!["unloaded".to_owned()], 0)
    );

    let lines = text(send(&server, post("/api/pull", json!({ "model": "new" }))).await).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["status"], "success");
    assert!(
        lines.iter().any(|line| (&line["completed"], &line["total"]) == (&json!(3), &json!(4))),
        "{lines:?}"
    );
    let missed = text(send(&server, post("/api/pull", json!({ "model": "nowhere" }))).await).await;
    assert!(missed.lines().last().unwrap().contains("no model is called nowhere"));
    let whole = post("/api/pull", json!({ "model": "nowhere", "stream": false }));
    object(send(&server, whole).await, StatusCode::NOT_FOUND).await;
    object(send(&server, question("new", 1)).await, StatusCode::OK).await;
    assert_eq!(send(&server, delete()).await.status(), StatusCode::OK);
    object(send(&server, question("a", 1)).await, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_key_may_be_needed_to_manage() {
    let shelf = Shelf::new(&["a"]);
    let access =
        Access { keys: vec!["ask".to_owned()], manage_keys: vec!["all".to_owned()], ..Access::default() };
    let server = router(Service::of_library(shelf, Terms::default()).unwrap(), access);
    let with = |mut request: Request<Body>, key: &str| {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    for (key, status, may) in [("ask", StatusCode::FORBIDDEN, false), ("all", StatusCode::OK, true)] {
        object(send(&server, with(post("/metallic/load", json!({ "model": "a" })), key)).await, status).await;
        let state = Request::get("/metallic/state").body(Body::empty()).unwrap();
        let state = object(send(&server, with(state, key)).await, StatusCode::OK).await;
        assert_eq!(state["can_manage"], may);
        object(send(&server, with(question("a", 1), key)).await, StatusCode::OK).await;
    }
    object(send(&server, with(question("a", 1), "other")).await, StatusCode::UNAUTHORIZED).await;
    object(send(&server, question("a", 1)).await, StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn a_model_in_use_is_neither_unloaded_nor_removed() {
    let shelf = Shelf::new(&["a"]);
    let server = shelf.server(Terms { manages: true, ..Terms::default() });
    let endless = json!({ "model": "a", "prompt": "x", "stream": true, "ignore_eos": true });
    let mut body = send(&server, post("/completion", endless)).await.into_body();
    body.frame().await.unwrap().unwrap();
    let model = json!({ "model": "a" });
    let unload = || post("/metallic/unload", &model);
    object(send(&server, unload()).await, StatusCode::CONFLICT).await;
    let delete = Request::delete("/api/delete").body(Body::from(model.to_string())).unwrap();
    object(send(&server, delete).await, StatusCode::CONFLICT).await;
    drop(body);
    let began = Instant::now();
    while send(&server, unload()).await.status() != StatusCode::OK {
        assert!(began.elapsed() < Duration::from_secs(20), "what nobody hears ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shelf.n_loaded.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn ollamas_clients_say_for_how_long_a_model_stays() {
    let shelf = Shelf::new(&["a"]);
    let server = shelf.server(Terms { manages: true, ..Terms::default() });
    let generate = |keep_alive: Value| {
        let options = json!({ "num_predict": 2 });
        post(
            "/api/generate",
            json!({ "model": "a", "prompt": "x", "options": options, "keep_alive": keep_alive }),
        )
    };
    let gone = async || {
        let began = Instant::now();
        while states(&server).await != ["unloaded"] {
            if began.elapsed() > Duration::from_secs(2) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    };
    text(send(&server, generate(json!(0))).await).await;
    assert!(gone().await, "at once");
    text(send(&server, generate(json!("100ms"))).await).await;
    text(send(&server, generate(json!(-1))).await).await;
    assert!(!gone().await, "the last one's wish counts");
    object(
        send(&server, post("/api/generate", json!({ "model": "a", "keep_alive": 0 }))).await,
        StatusCode::OK,
    )
    .await;
    assert!(gone().await, "without a question, too");
}
