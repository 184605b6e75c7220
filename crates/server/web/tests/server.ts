/** Servers for the tests: the files as `metallic serve` serves them, with answers that a test writes; and a real one. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const TYPES: Record<string, string> = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml", txt: "text/plain" };

/** What the server in Rust sends with the page: read from its source, so that there is one place for it. */
function policy(): string {
  const source = readFileSync("../src/page.rs", "utf8");
  const found = /CONTENT_SECURITY_POLICY,\s*HeaderValue::from_static\(\s*"([^"]+)"/.exec(source)?.[1];
  if (!found) throw new Error("page.rs has no policy");
  return found.replace(/\\\n\s*/g, "");
}

/** Answers a request to an endpoint; its body is read. */
export type Endpoint = (response: ServerResponse, body: any, request: IncomingMessage) => void | Promise<void>;

export class FakeServer {
  /** By method and path, such as `POST /v1/chat/completions`. */
  readonly endpoints = new Map<string, Endpoint>();
  /** What was asked of each. */
  readonly asked: { what: string; body: any }[] = [];
  /** Without it, everything is for everyone. */
  key: string | null = null;
  url = "";

  private readonly http = createServer((request, response) => void this.answer(request, response));

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.http.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.http.address() as AddressInfo).port}/`;
    this.on("GET /v1/models", (response) => object(response, { data: [{ id: "tiny" }] }));
    return this;
  }

  stop(): void {
    this.http.closeAllConnections();
    this.http.close();
  }

  on(what: string, endpoint: Endpoint): void {
    this.endpoints.set(what, endpoint);
  }

  /** What an endpoint was asked last. */
  last(what: string): any {
    return this.asked.findLast((one) => one.what === what)?.body;
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    const what = `${request.method} ${path}`;
    const name = path === "/" ? "index.html" : path.slice(1);
    const type = TYPES[name.split(".").at(-1) ?? ""];
    if (request.method === "GET" && type) {
      response.writeHead(200, { "content-type": `${type}; charset=utf-8`, "content-security-policy": policy() });
      response.end(readFileSync(`dist/${name}`));
      return;
    }
    if (this.key !== null && request.headers.authorization !== `Bearer ${this.key}`) {
      object(response, { error: { message: "the request brings no key of this server" } }, 401);
      return;
    }
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const text = Buffer.concat(pieces).toString();
    const body = text === "" ? null : JSON.parse(text);
    this.asked.push({ what, body });
    const endpoint = this.endpoints.get(what);
    if (endpoint) await endpoint(response, body, request);
    else object(response, { error: { message: "there is no such endpoint" } }, 404);
  }
}

export function object(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/** A stream of chunks, of which each is a delta, or a number of milliseconds to wait. */
export function answering(pieces: (object | number)[], reason = "stop"): Endpoint {
  return async (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    let n = 0;
    for (const piece of pieces) {
      if (typeof piece === "number") {
        await new Promise((resolve) => setTimeout(resolve, piece));
        continue;
      }
      n += 1;
      response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: piece, finish_reason: null }] })}\n\n`);
    }
    response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: reason }] })}\n\n`);
    const usage = { prompt_tokens: 12, completion_tokens: n, prompt_tokens_details: { cached_tokens: 3 } };
    response.end(`data: ${JSON.stringify({ choices: [], usage })}\n\ndata: [DONE]\n\n`);
  };
}

/** The deltas of a text that comes word by word. */
export function words(text: string, everyMs = 0): (object | number)[] {
  const deltas = text.match(/\S+\s*|\s+/g)?.map((content) => ({ content })) ?? [];
  return everyMs === 0 ? deltas : deltas.flatMap((delta) => [delta, everyMs]);
}

/** `metallic serve` with a model. */
export async function realServer(binary: string, model: string, flags: string[]): Promise<{ url: string; process: ChildProcess }> {
  const args = ["serve", model, "--alias", "smollm2", "--port", "0", "-c", "1024", ...flags];
  const process = spawn(binary, args, { stdio: ["ignore", "ignore", "pipe"] });
  const said: string[] = [];
  const url = await new Promise<string>((resolve, reject) => {
    process.stderr?.on("data", (data: Buffer) => {
      said.push(data.toString());
      const found = /serving \S+ at (http:\/\/\S+)\/v1/.exec(said.join(""));
      if (found?.[1]) resolve(`${found[1]}/`);
    });
    process.on("exit", () => reject(new Error(`the server did not start: ${said.join("")}`)));
  });
  return { url, process };
}
