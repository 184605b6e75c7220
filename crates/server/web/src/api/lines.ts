/** Bodies that come a line at a time. */
import { ApiError, isAbort } from "./http";

/** A line's length at most: far more than any line of ours, but not all memory. */
const MAX_LINE = 16 << 20;

/** The lines of a body, wherever its pieces end. */
export async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw isAbort(error) ? error : new ApiError("The connection to the server broke.", 0);
      });
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > MAX_LINE) throw new ApiError("The server’s answer has a line without an end.", 0);
      for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
    if (rest !== "") yield rest;
  } finally {
    // Whoever stops listening has the server stop, too.
    await reader.cancel().catch(() => {});
  }
}

/** The data of server-sent events. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let data: string[] = [];
  for await (const line of linesOf(body)) {
    if (line === "") {
      if (data.length > 0) yield data.join("\n");
      data = [];
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
    }
  }
}
