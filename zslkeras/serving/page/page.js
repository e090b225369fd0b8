// The page: images and classes go in, and the answers follow every change of either.

import { Attention } from "./attention.js";
import { Classes } from "./classes.js";
import { Curve } from "./curve.js";
import { breakable, download, element, find, redraw } from "./dom.js";
import { Editor, markOf } from "./editor.js";
import { read } from "./pictures.js";
import { ranked } from "./ranking.js";
import { lookAt, predictPath, readModel, readTable, readWords, score, scoringOf } from "./server.js";

const model = await readModel().catch((error) => {
  say(error.message);
  throw error;
});
const pictures = []; // {name, url, image, answer, asked, maps}
let shown = null;
let gamma = model.gamma;
let version = 0; // of the table of classes; an answer is of one
let running = false;

const classes = new Classes(model);
const attention = new Attention(model);
const editor = new Editor(classes, changed, (name) => attention.point("attributes", name));

start();

function start() {
  document.title = `${model.name} · zslkeras`;
  find("title").textContent = model.name;
  const trained = model.seen.filter(Boolean).length;
  find("about").textContent =
    `${model.method}: ${trained} trained classes, ${model.seen.length - trained} others, ` +
    `${model.attributes.length} attributes. Images go to ${location.host} and nowhere else.`;
  find("stage").classList.toggle("whole", !model.crop);
  find("curl").textContent =
    `curl -s ${location.origin}${predictPath(model)} \\\n  -H 'Content-Type: application/json' -d @request.json`;
  startGamma();
  find("files").addEventListener("change", (event) => take(event.target.files));
  find("paste").addEventListener("submit", (event) => takeRows(event, () => readTable(find("pasted").value)));
  find("tell").addEventListener("submit", (event) =>
    takeRows(event, () => readWords({ [find("told-name").value.trim()]: find("told").value })),
  );
  find("words").hidden = !model.words;
  startGallery();
  find("csv").addEventListener("click", () => download("classes.csv", classes.csv(), "text/csv"));
  find("request").addEventListener("click", () =>
    download("request.json", JSON.stringify(scoringOf(shown.image, classes.scored)), "application/json"),
  );
  startDropping();
}

function startGamma() {
  const slider = find("gamma");
  const [min, max] = model.gammas;
  Object.assign(slider, { min, max, step: (max - min) / 300, value: model.gamma });
  const curve = new Curve(model);
  find("gamma-chosen").append(element("option", { value: model.gamma }));
  find("gamma-reset").textContent = `chosen on validation classes: ${model.gamma.toFixed(3)}`;
  const set = (value) => {
    gamma = value;
    find("gamma-value").textContent = gamma.toFixed(3);
    find("gamma-reset").disabled = gamma === model.gamma;
    curve.show(gamma);
    drawAnswer();
  };
  slider.addEventListener("input", () => set(Number(slider.value)));
  find("gamma-reset").addEventListener("click", () => {
    slider.value = model.gamma;
    set(model.gamma);
  });
  set(model.gamma);
}

function startGallery() {
  find("tries").hidden = !model.gallery.length;
  const items = model.gallery.map((name, place) => {
    const path = `page/gallery/${place}`;
    const button = element("button", { type: "button", className: "thumbnail" });
    button.append(element("img", { src: path, alt: name, loading: "lazy" }));
    button.addEventListener("click", async () => {
      const content = await (await fetch(path)).blob();
      take([new File([content], name, { type: content.type })]);
    });
    return element("li", {}, button);
  });
  find("gallery").replaceChildren(...items);
}

function startDropping() {
  const over = (on) => document.body.classList.toggle("dropping", on);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => over(event.relatedTarget !== null));
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    take(event.dataTransfer.files);
  });
}

async function take(files) {
  for (const file of files) {
    try {
      pictures.push(await read(file, model.limits));
      show(pictures.at(-1));
      say("");
    } catch (error) {
      say(error.message);
    }
  }
  find("files").value = ""; // so that the same file can be chosen again
  refresh();
}

// Adds the classes that the server makes of a form, and empties the form.
async function takeRows(event, asked) {
  event.preventDefault();
  try {
    const { classes: rows, notes } = await asked();
    classes.take(rows);
    event.target.reset();
    editor.list();
    editor.edit(rows.length === 1 ? classes.all.get(rows[0].name) : null);
    changed();
    say(notes.join(" "));
  } catch (error) {
    say(error.message);
  }
}

function changed() {
  version += 1;
  refresh();
}

// Asks for what is missing, the image that is shown first, until nothing is. One request runs at a time: while a slider
// moves, the answers follow as fast as they come.
async function refresh() {
  if (running) return;
  running = true;
  try {
    for (let todo = next(); todo; todo = next()) await todo();
  } finally {
    running = false;
  }
}

function next() {
  if (classes.waiting.size) return makeRows;
  const ordered = shown ? [shown, ...pictures.filter((one) => one !== shown)] : [];
  const stale = ordered.find((one) => one.asked !== version);
  if (stale) return () => ask(stale);
  return attention.there && shown && shown.maps === undefined ? () => look(shown) : null;
}

async function makeRows() {
  try {
    say((await classes.make()).join(" "));
  } catch (error) {
    say(error.message);
  }
  editor.show();
  version += 1;
}

async function ask(picture) {
  picture.asked = version;
  const among = classes.scored.map((one) => ({ ...one })); // as they are now: they change while the server thinks
  try {
    picture.answer = among.length ? { classes: among, ...(await score(model, picture.image, among)) } : null;
    picture.failed = false;
  } catch (error) {
    picture.answer = null;
    picture.failed = true;
    say(`${picture.name}: ${error.message}`);
  }
  if (picture === shown) drawAnswer();
  drawThumbnails();
}

async function look(picture) {
  picture.maps = null;
  try {
    picture.maps = picture.failed ? null : await lookAt(model, picture.image);
  } catch (error) {
    say(`${picture.name}: ${error.message}`);
  }
  if (picture === shown) attention.show(picture.maps);
}

function show(picture) {
  shown = picture;
  find("stage").hidden = false;
  find("picture").src = picture.url;
  find("picture").alt = picture.name;
  find("request").disabled = false;
  attention.show(picture.maps ?? null);
  drawThumbnails();
  drawAnswer();
  refresh();
}

function drawThumbnails() {
  redraw(
    find("thumbnails"),
    pictures.map((picture) => {
      const best = rankingOf(picture)[0]?.one.name ?? "";
      const button = element(
        "button",
        { type: "button", className: "thumbnail", title: picture.name },
        element("img", { src: picture.url, alt: picture.name }),
        element("span", { textContent: picture.failed ? "no answer" : best }),
      );
      button.setAttribute("aria-pressed", picture === shown);
      button.addEventListener("click", () => show(picture));
      return element("li", {}, button);
    }),
  );
}

const rankingOf = (picture) =>
  picture.answer ? ranked(picture.answer, gamma, model.gamma, (one) => one.name === editor.edited?.name) : [];

function drawAnswer() {
  const ranking = shown ? rankingOf(shown) : [];
  find("nothing").hidden = Boolean(shown);
  find("brief").hidden = !ranking.length;
  find("brief").textContent = ranking.slice(0, 2).map(({ one, score }) => `${one.name} ${score.toFixed(3)}`).join(" · ");
  redraw(
    find("ranking"),
    ranking.map(({ one, score, share, rank }) => {
      const bar = element("div", { className: one.seen ? "bar seen" : "bar new" });
      bar.style.width = `${Math.max(1, 100 * share)}%`;
      const name = element("span", { className: "name" }, ...breakable(one.name));
      const number = element("span", { className: "score", textContent: score.toFixed(3) });
      const words = element("div", { className: "words" }, name, markOf(one), number);
      const line = element("li", { value: rank, tabIndex: 0 }, words, element("div", { className: "track" }, bar));
      for (const event of ["pointerenter", "focus"]) {
        line.addEventListener(event, () => attention.point("classes", one.name));
      }
      return line;
    }),
  );
}

function say(sentence) {
  find("status").textContent = sentence;
}
