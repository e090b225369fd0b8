// The table of classes: its list, and the sliders of the class that is being edited.

import { breakable, element, find } from "./dom.js";

// How a class came to be, beside its name everywhere.
export const markOf = (one) =>
  element("span", { className: one.seen ? "mark seen" : "mark new", textContent: one.seen ? "trained" : "never trained" });

export class Editor {
  // `changed` is called after every change of the table, `pointed` with an attribute that is pointed at, or null.
  constructor(classes, changed, pointed) {
    Object.assign(this, { classes, changed, pointed, edited: null, rows: [] });
    find("add").addEventListener("submit", (event) => this.#add(event));
    find("close").addEventListener("click", () => this.edit(null));
    find("undo").addEventListener("click", () => this.#undo());
    find("filter").addEventListener("input", () => this.#filter());
    find("find").addEventListener("input", () => this.#find());
    this.list();
  }

  list() {
    const like = find("like");
    const chosen = like.value;
    const names = [...this.classes.all.keys()];
    like.replaceChildren(
      element("option", { value: "", textContent: "nothing yet" }),
      ...names.map((name) => element("option", { value: name, textContent: name })),
    );
    like.value = this.classes.all.has(chosen) ? chosen : "";
    const all = [...this.classes.all.values()];
    all.sort((a, b) => a.own - b.own); // classes made here come first
    find("list").replaceChildren(...all.map((one) => this.#item(one)));
    this.#filter();
  }

  // Shows the sliders of a class, or of none.
  edit(one) {
    this.edited = one;
    find("editor").hidden = !one;
    this.pointed(null);
    if (!one) return;
    find("edited").replaceChildren(...breakable(one.name), " ", markOf(one));
    find("undo").textContent = one.own ? "Reset" : "Remove";
    this.rows = this.classes.model.attributes.map((name, place) => this.#row(one, name, place));
    find("sliders").replaceChildren(...this.#groups());
    find("find").value = "";
    this.show();
  }

  // Moves the sliders to where the class is.
  show() {
    if (!this.edited) return;
    const values = this.classes.valuesOf(this.edited);
    for (const { name, place, line, tick, slider, output } of this.rows) {
      const given = values.has(name);
      const value = given ? values.get(name) : this.edited.row?.[place];
      tick.checked = given;
      line.classList.toggle("filled", !given);
      if (value !== undefined) slider.value = value;
      output.textContent = value === undefined ? "" : this.#percent(value, place);
      slider.setAttribute("aria-valuetext", output.textContent || "not known");
    }
  }

  #item(one) {
    const tick = element("input", { type: "checkbox", checked: one.on });
    tick.setAttribute("aria-label", `${one.name} can be the answer`);
    tick.addEventListener("change", () => {
      one.on = tick.checked;
      this.changed();
    });
    const name = element("button", { type: "button", className: "plain" }, ...breakable(one.name));
    name.addEventListener("click", () => {
      this.edit(one);
      find("editor").scrollIntoView({ block: "nearest" });
      find("find").focus();
    });
    const changed = one.own && one.given ? [element("span", { className: "mark", textContent: "changed" })] : [];
    return element("li", {}, tick, name, ...changed, markOf(one));
  }

  #row(one, name, place) {
    const [least, most] = this.classes.ranges[place];
    const short = name.split("::").at(-1).replaceAll("_", " ");
    const tick = element("input", { type: "checkbox" });
    tick.setAttribute("aria-label", `${short} is given`);
    const slider = element("input", { type: "range", min: least, max: most, step: (most - least) / 100 });
    const output = element("output");
    const label = element("label", {}, element("span", { textContent: short }), slider);
    const line = element("div", { className: "slider" }, tick, label, output);
    slider.addEventListener("input", () => this.#set(one, name, Number(slider.value)));
    tick.addEventListener("change", () => this.#set(one, name, tick.checked ? Number(slider.value) : null));
    for (const event of ["pointerenter", "focusin"]) line.addEventListener(event, () => this.pointed(name));
    return { name, place, line, tick, slider, output };
  }

  // The sliders in groups by what stands before "::"; attributes without it are one open group.
  #groups() {
    const groups = new Map();
    for (const row of this.rows) {
      const group = row.name.includes("::") ? row.name.split("::")[0] : "";
      groups.set(group, [...(groups.get(group) || []), row.line]);
    }
    return [...groups].map(([name, lines]) => {
      const title = name ? name.replaceAll("_", " ") : "attributes";
      return element("details", { open: !name }, element("summary", { textContent: `${title} (${lines.length})` }), ...lines);
    });
  }

  #set(one, name, value) {
    const unchanged = one.own && !one.given;
    this.classes.set(one, name, value);
    if (unchanged) this.list();
    this.show();
    this.changed();
  }

  #percent(value, place) {
    const [least, most] = this.classes.ranges[place];
    return `${Math.round((100 * (value - least)) / (most - least))} %`;
  }

  #add(event) {
    event.preventDefault();
    const name = find("name").value.trim();
    if (!name) return;
    if (this.classes.all.has(name)) {
      find("name").setCustomValidity("There is a class of this name.");
      find("name").reportValidity();
      find("name").addEventListener("input", () => find("name").setCustomValidity(""), { once: true });
      return;
    }
    const made = this.classes.add(name, find("like").value);
    find("add").reset();
    this.list();
    this.edit(made);
    this.changed();
  }

  #undo() {
    const one = this.edited;
    this.classes.undo(one);
    this.edit(one.own ? one : null);
    this.list();
    this.changed();
  }

  #filter() {
    const wanted = find("filter").value.toLowerCase();
    for (const item of find("list").children) {
      item.hidden = !item.querySelector("button").textContent.toLowerCase().includes(wanted);
    }
  }

  #find() {
    const wanted = find("find").value.toLowerCase();
    for (const { name, line } of this.rows) line.hidden = !name.replaceAll("_", " ").toLowerCase().includes(wanted);
    for (const group of find("sliders").children) {
      const some = [...group.querySelectorAll(".slider")].some((line) => !line.hidden);
      group.hidden = !some;
      if (wanted) group.open = some;
    }
  }
}
