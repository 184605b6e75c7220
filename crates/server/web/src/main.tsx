import "./styles/base.css";
import "./styles/controls.css";
import "./styles/chat.css";
import "./styles/prose.css";
import "./styles/models.css";
import "./styles/memory.css";

import { render } from "preact";

import { App } from "./app";
import { runs } from "./chat/run";
import { start } from "./chat/store";
import { readNames, readState } from "./server";

await start((id) => runs.peek().has(id));
const place = document.getElementById("app");
if (place) render(<App />, place);
void readState();
void readNames();
