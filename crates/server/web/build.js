// Makes `dist/` of the sources: the files that the server has in it. The same sources and lock file give the same bytes.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";

const manifest = JSON.parse(await readFile("package.json", "utf8"));

await mkdir("dist", { recursive: true });
await build({
  entryPoints: { app: "src/main.tsx" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome123", "firefox120", "safari17.5"],
  charset: "utf8",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) await copyFile(`src/${name}`, `dist/${name}`);

// Whose libraries are in it, in their own words, as their licenses ask.
const names = [...Object.keys(manifest.dependencies), "@preact/signals-core"].sort();
const notices = [];
for (const name of names) {
  const { version } = JSON.parse(await readFile(`node_modules/${name}/package.json`, "utf8"));
  const text = await firstOf(name, ["LICENSE", "LICENSE.md", "LICENSE.txt"]);
  notices.push(`${name} ${version}\n\n${text.trim()}\n`);
}
await writeFile("dist/licenses.txt", notices.join(`\n${"-".repeat(80)}\n\n`));

/** The first of these files that a package has. */
async function firstOf(name, files) {
  for (const file of files) {
    try {
      return await readFile(`node_modules/${name}/${file}`, "utf8");
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  throw new Error(`${name} has no license beside it`);
}
