/** `/v1/chat/completions`, as it comes. */
import { ApiError, errorOf, json, request } from "./http";
import { eventsOf } from "./lines";

/** A call of a tool; its arguments are JSON, as a text. */
export interface Call {
  id: string;
  name: string;
  arguments: string;
}

/** A message as the API has it. */
export type ApiMessage =
  | { role: "system" | "user"; content: string }
  | { role: "tool"; content: string; tool_call_id: string }
  | { role: "assistant"; content: string; reasoning_content?: string; tool_calls?: ApiCall[] };

interface ApiCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

export interface ChatRequest {
  model?: string;
  messages: ApiMessage[];
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  seed?: number;
  tools?: unknown[];
}

/** Something that an answer says. */
export type Piece =
  | { kind: "content"; text: string }
  | { kind: "reasoning"; text: string }
  | { kind: "call"; index: number; call: Call }
  | { kind: "finish"; reason: string }
  | { kind: "usage"; nPrompt: number; nCached: number; nGenerated: number };

interface Chunk {
  error?: unknown;
  choices?: {
    delta?: {
      content?: string | null;
      reasoning_content?: string | null;
      tool_calls?: { index?: number; id?: string; function?: { name?: string; arguments?: string } }[];
    };
    finish_reason?: string | null;
  }[];
  usage?: {
    prompt_tokens?: number;
    completion_tokens?: number;
    prompt_tokens_details?: { cached_tokens?: number };
  } | null;
}

/** What the server says to a conversation, piece by piece. Without its end, which can't be known to be one, an error. */
export async function* complete(ask: ChatRequest, signal: AbortSignal): AsyncGenerator<Piece> {
  const body = { ...ask, stream: true, stream_options: { include_usage: true } };
  const response = await request("v1/chat/completions", { body, signal });
  if (response.body === null) throw new ApiError("The server’s answer is empty.", response.status);
  for await (const data of eventsOf(response.body)) {
    if (data === "[DONE]") return;
    yield* piecesOf(JSON.parse(data) as Chunk);
  }
  throw new ApiError("The connection ended in the midst of the answer.", 0);
}

function* piecesOf(chunk: Chunk): Generator<Piece> {
  if (chunk.error !== undefined) throw errorOf(chunk, 500);
  for (const { delta, finish_reason } of chunk.choices ?? []) {
    if (delta?.reasoning_content) yield { kind: "reasoning", text: delta.reasoning_content };
    if (delta?.content) yield { kind: "content", text: delta.content };
    for (const { index, id, function: called } of delta?.tool_calls ?? []) {
      const call = { id: id ?? "", name: called?.name ?? "", arguments: called?.arguments ?? "" };
      yield { kind: "call", index: index ?? 0, call };
    }
    if (finish_reason) yield { kind: "finish", reason: finish_reason };
  }
  if (chunk.usage) {
    const { prompt_tokens, completion_tokens, prompt_tokens_details } = chunk.usage;
    yield {
      kind: "usage",
      nPrompt: prompt_tokens ?? 0,
      nCached: prompt_tokens_details?.cached_tokens ?? 0,
      nGenerated: completion_tokens ?? 0,
    };
  }
}

/** The names of the models that answer. */
export async function modelNames(): Promise<string[]> {
  const { data } = await json<{ data: { id: string }[] }>("v1/models", { isByItself: true });
  return data.map(({ id }) => id);
}
