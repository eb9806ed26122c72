// What the page does beyond its HTML: the dialog of origins, and searching. Filters of the examples
// are CSS alone. All texts are set as text, never as HTML.
"use strict";

const { nodes, shared } = JSON.parse(document.getElementById("nodes").textContent);
const dialog = document.getElementById("origin");
const back = document.getElementById("back");
const views = [];

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function manifestOf(node) {
  const path = node.name.split("/").map(encodeURIComponent).join("/");
  return `../nodes/${path}/${node.key}/manifest.json`;
}

// --- the dialog of origins ---------------------------------------------------------------------

function settingsOf(value, depth = 0) {
  const list = element("dl", "", { class: depth ? "nested" : "" });
  for (const [name, inner] of Object.entries(value)) {
    list.append(element("dt", name.replaceAll("_", " ")));
    const isObject = inner !== null && typeof inner === "object" && !Array.isArray(inner);
    const cell = element("dd", isObject ? "" : Array.isArray(inner) ? inner.join(", ") : String(inner));
    if (isObject) cell.append(settingsOf(inner, depth + 1));
    list.append(cell);
  }
  return list;
}

function factsOf(node) {
  const code = shared[node.code];
  const list = settingsOf({ key: node.key, digest: node.digest, code: code.fingerprint, ...code.versions });
  list.classList.add("identity");
  return list;
}

function aboveOf(node) {
  const list = element("ul", "", { class: "above" });
  for (const [number, role] of node.above) {
    const item = element("li", role ? `${role}: ` : "");
    item.append(element("a", nodes[number].name, { href: `#node-${number}`, "data-from": number }));
    list.append(item);
  }
  for (const [role, digest] of Object.entries(node.sources)) {
    list.append(element("li", `${role}: source with sha256 ${digest}`));
  }
  return list;
}

function part(title, content) {
  const box = element("div");
  box.append(element("h3", title), content);
  return box;
}

function described(node, open) {
  const box = element("details", "", { class: "node" });
  box.open = open;
  const summary = element("summary");
  summary.append(element("span", node.name), " ", element("code", node.key));
  box.append(summary);
  const fill = () => {
    if (box.childElementCount > 1) return;
    const manifest = element("p");
    manifest.append(element("a", "manifest.json", { href: manifestOf(node), class: "manifest" }));
    box.append(manifest, part("Identity", factsOf(node)), part("Settings", settingsOf(shared[node.settings])));
    if (node.above.length || Object.keys(node.sources).length) box.append(part("Reads", aboveOf(node)));
    if (Object.keys(node.facts).length) box.append(part("Facts", settingsOf(node.facts)));
  };
  // Filled when opened: a mean may come from dozens of nodes.
  box.addEventListener("toggle", () => box.open && fill());
  if (open) fill();
  return box;
}

function show({ title, numbers }) {
  document.getElementById("origin-title").textContent = title;
  const list = document.getElementById("origin-nodes");
  list.replaceChildren(...numbers.map((number) => described(nodes[number], numbers.length === 1)));
  back.hidden = views.length < 2;
  list.scrollTop = 0;
}

function titleOf(link, numbers) {
  const named = link.closest("[data-of]");
  return named ? named.dataset.of : nodes[numbers[0]].name;
}

function openOrigin(link) {
  const source = link.closest("[data-from]");
  const numbers = source.dataset.from.split(" ").map(Number);
  views.push({ title: titleOf(link, numbers), numbers });
  show(views.at(-1));
  if (!dialog.open) dialog.showModal();
  document.getElementById("origin-title").focus();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-from] a, a[data-from]");
  if (!link || link.classList.contains("manifest") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  openOrigin(link);
});

back.addEventListener("click", () => {
  views.pop();
  show(views.at(-1));
});
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => (views.length = 0));

// --- examples and nodes ------------------------------------------------------------------------

for (const hidden of document.querySelectorAll(".scripted")) hidden.hidden = false;

for (const [id, checked] of [["show-all", true], ["show-none", false]]) {
  document.getElementById(id)?.addEventListener("click", () => {
    for (const box of document.querySelectorAll(".filter")) box.checked = checked;
  });
}

document.getElementById("find-node").addEventListener("input", ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  let found = 0;
  for (const stage of document.querySelectorAll(".stage")) {
    let here = 0;
    for (const item of stage.querySelectorAll("li")) {
      item.hidden = !item.textContent.toLowerCase().includes(wanted);
      here += item.hidden ? 0 : 1;
    }
    stage.hidden = here === 0;
    stage.open = wanted !== "" && here > 0;
    found += here;
  }
  document.getElementById("found").textContent = wanted ? `${found} of ${nodes.length}` : "";
});

// Paper shows only what is open.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("section details:not(.stage)")) part.open = true;
});

// A browser may jump to a closed part without opening it.
function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const closed = target && target.closest("details:not([open])");
  if (closed) {
    closed.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", openTarget);
openTarget();
