// Where the model looks: an overlay on the image that follows the attribute or the class one points at.

import { element, find } from "./dom.js";
import { drawMap } from "./pictures.js";

const STRONGEST = 10;

export class Attention {
  constructor(model) {
    this.model = model;
    this.maps = null; // of the image that is shown
    this.names = null; // what the rows of a map are called
    const kinds = Object.keys(model.attention);
    const kind = find("kind");
    kind.replaceChildren(...kinds.map((name) => element("option", { value: name, textContent: name.replaceAll("_", " ") })));
    kind.hidden = kinds.length < 2;
    kind.addEventListener("change", () => this.show(this.maps));
  }

  get there() {
    return Object.keys(this.model.attention).length > 0;
  }

  // Shows the maps of an image; null where they are not known yet.
  show(maps) {
    this.maps = maps;
    find("attention").hidden = !maps;
    find("overlay").hidden = true;
    if (!maps) return;
    this.kind = find("kind").value;
    this.of = this.model.attention[this.kind];
    this.names = this.model[this.of];
    const scores = maps[`${this.kind}_scores`].slice(0, this.names.length); // text beside attributes has no names
    const order = scores.map((_, place) => place).sort((a, b) => scores[b] - scores[a]);
    find("strongest").replaceChildren(...order.slice(0, STRONGEST).map((place) => this.#chip(this.names[place])));
    find("pointed").textContent = `Point at ${this.of === "classes" ? "a class" : "an attribute"} here or in the table.`;
  }

  // Follows what is pointed at; null is nothing.
  point(of, name) {
    const place = this.maps && of === this.of ? this.names.indexOf(name) : -1;
    find("overlay").hidden = place < 0;
    if (place < 0) return;
    const uneven = drawMap(find("overlay"), this.maps[this.kind][place]);
    const score = this.maps[`${this.kind}_scores`][place].toFixed(2);
    find("pointed").textContent = `${plain(name)}: ${score}${uneven ? "" : "; the model looks everywhere alike"}`;
  }

  #chip(name) {
    const made = element("button", { type: "button", className: "chip", textContent: plain(name) });
    for (const event of ["pointerenter", "focus", "click"]) made.addEventListener(event, () => this.point(this.of, name));
    return made;
  }
}

const plain = (name) => name.replace("::", ": ").replaceAll("_", " ");
