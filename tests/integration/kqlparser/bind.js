// Parses and binds KQL with Microsoft's own parser.
// stdin: {"tables": {name: {column: type}}, "queries": {name: text}}; stdout: {name: [what is wrong, ...]}
// The working folder is where the package is installed.
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const folder = path.resolve("node_modules/@kusto/language-service-next");
for (const file of ["bridge.min.js", "Kusto.Language.Bridge.min.js"]) {
  vm.runInThisContext(fs.readFileSync(path.join(folder, file), "utf8"), { filename: file });
}

const { tables, queries } = JSON.parse(fs.readFileSync(0, "utf8"));
const { Symbols, GlobalState, KustoCode } = Kusto.Language;
const symbols = Object.entries(tables).map(([name, columns]) => {
  const listed = Object.entries(columns).map(([column, type]) => `['${column}']: ${type}`).join(", ");
  return Symbols.TableSymbol.From(`(${listed})`).WithName(name);
});
const database = new Symbols.DatabaseSymbol.$ctor1("events", symbols);
const globals = GlobalState.Default.WithDatabase(database);

const found = {};
for (const [name, text] of Object.entries(queries)) {
  const diagnostics = KustoCode.ParseAndAnalyze(text, globals).GetDiagnostics();
  found[name] = [];
  for (let at = 0; at < diagnostics.Count; at += 1) {
    const one = diagnostics.getItem(at);
    found[name].push(`${one.Severity} ${one.Code}: ${one.Message}`);
  }
}
process.stdout.write(JSON.stringify(found));
