// The seen-unseen curve of validation rows: what each gamma costs seen classes, and brings unseen ones.

import { find } from "./dom.js";

const SIDE = 100; // of the drawing, whose axes run from 0 to 1

export class Curve {
  constructor(model) {
    this.curve = model.curve;
    this.gammas = model.gammas;
    find("validation").hidden = !this.curve;
    if (!this.curve) return;
    const points = this.curve.U.map((_, place) => this.#point(place).join(" "));
    shape("polyline", { points: points.join(" "), class: "curve" });
    this.#circle(model.gamma, "chosen");
    this.here = this.#circle(model.gamma, "here");
    this.show(model.gamma);
  }

  show(gamma) {
    if (!this.curve) return;
    const place = this.#place(gamma);
    const [x, y] = this.#point(place);
    this.here.setAttribute("cx", x);
    this.here.setAttribute("cy", y);
    const [unseen, seen] = [this.curve.U[place], this.curve.S[place]].map((share) => `${Math.round(100 * share)} %`);
    find("validation-text").textContent =
      `At this gamma, of validation images, ${unseen} of unseen and ${seen} of seen classes are right.`;
  }

  #place(gamma) {
    const [least, most] = this.gammas;
    return Math.round(((gamma - least) / (most - least)) * (this.curve.U.length - 1));
  }

  #point(place) {
    return [SIDE * this.curve.U[place], SIDE * (1 - this.curve.S[place])];
  }

  #circle(gamma, kind) {
    const [cx, cy] = this.#point(this.#place(gamma));
    return shape("circle", { cx, cy, r: 4, class: kind });
  }
}

function shape(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  find("curve").append(made);
  return made;
}
