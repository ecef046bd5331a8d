#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Compiles the sources in this folder into artefacts.json with solc (the npm package, WebAssembly). Only whoever changes a
# source runs this: the artefacts are checked in, and neither the tests nor the demonstration need npm, node or solc.
# The same sources give the same bytes: `sh devnet/solidity/build.sh && git diff --exit-code devnet/solidity/artefacts.json`.
set -eu
SOLC=0.8.30
SHA256=3bb491a777f76dff9b2fe73ce29ca20e21a971b59a2f2cf8f73415424f00be06 # of its soljson.js
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
npm install --prefix "$work" --ignore-scripts --no-audit --no-fund --silent "solc@$SOLC"
echo "$SHA256  $work/node_modules/solc/soljson.js" | sha256sum --check --quiet
NODE_PATH="$work/node_modules" node - "$here" <<'JS'
const fs = require("fs"), path = require("path"), solc = require("solc");
const here = process.argv[2];
const names = fs.readdirSync(here).filter((n) => n.endsWith(".sol")).sort();
const sources = Object.fromEntries(names.map((n) => [n, { content: fs.readFileSync(path.join(here, n), "utf8") }]));
const settings = {
  optimizer: { enabled: true, runs: 200 },
  evmVersion: "paris", // no PUSH0: runs on every chain
  metadata: { bytecodeHash: "none", appendCBOR: false }, // the same code whatever a comment says
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};
const out = JSON.parse(solc.compile(JSON.stringify({ language: "Solidity", sources, settings })));
for (const e of out.errors || []) console.error(e.formattedMessage);
if ((out.errors || []).some((e) => e.severity === "error")) process.exit(1);
const contracts = {};
for (const file of names) {
  for (const [name, c] of Object.entries(out.contracts[file]).sort()) {
    if (c.evm.bytecode.object) contracts[name] = { source: file, abi: c.abi, bytecode: "0x" + c.evm.bytecode.object };
  }
}
const text = JSON.stringify({ compiler: solc.version(), settings, contracts }, null, 1) + "\n";
fs.writeFileSync(path.join(here, "artefacts.json"), text);
JS
