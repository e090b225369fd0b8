// The classes among which images are recognised: those of the model, changed ones and new ones.
//
// A class is {name, own, seen, on, row, given, said}. `row` is what the model takes, made by the server; `given` is a Map
// of the attributes that were set here, or null where the row is as it came, and `said` is its description in words, or
// null. `on` says whether it can be the answer.

import { describe } from "./server.js";

export class Classes {
  constructor(model) {
    this.model = model;
    this.all = new Map();
    this.waiting = new Set(); // names of classes whose row is to be made from what is given
    this.ranges = rangesOf(model.class_embeddings, model.attributes.length);
    model.classes.forEach((name, place) => {
      this.all.set(name, { name, own: true, seen: model.seen[place], on: true, row: model.class_embeddings[place], given: null, said: null });
    });
  }

  get scored() {
    return [...this.all.values()].filter((one) => one.on && one.row);
  }

  // Adds a class that starts as another one, or as nothing; returns it.
  add(name, like) {
    const start = this.all.get(like);
    const given = start ? this.valuesOf(start) : new Map();
    const made = { name, own: false, seen: false, on: true, row: start ? start.row : null, given, said: null };
    this.all.set(name, made);
    return made;
  }

  // Takes rows that the server made of a table or of words; they replace classes of the same name.
  take(rows) {
    for (const { name, seen, row, said } of rows) {
      const known = this.all.get(name);
      const taken = { name, own: Boolean(known?.own), seen, on: true, row, given: null, said };
      this.all.set(name, { ...taken, given: this.valuesOf(taken) });
    }
  }

  // What sliders show of a class: its own values, and the row where none was set.
  valuesOf(one) {
    return one.given ? new Map(one.given) : new Map(this.model.attributes.map((name, place) => [name, one.row[place]]));
  }

  // Sets an attribute of a class, or leaves it to be filled in where the value is null.
  set(one, attribute, value) {
    one.given ??= this.valuesOf(one);
    if (value === null) one.given.delete(attribute);
    else one.given.set(attribute, value);
    if (!one.given.size) one.row = null; // nothing is known of it any more
    this.waiting.add(one.name);
  }

  // A class of the model gets its own row again; another one goes.
  undo(one) {
    this.waiting.delete(one.name);
    if (!one.own) return this.all.delete(one.name);
    one.given = null;
    one.row = this.model.class_embeddings[this.model.classes.indexOf(one.name)];
  }

  // Has the server make the rows that wait; returns what it has to say about them.
  async make() {
    const waiting = [...this.waiting].map((name) => this.all.get(name)).filter((one) => one?.given?.size);
    this.waiting.clear();
    if (!waiting.length) return [];
    const given = Object.fromEntries(waiting.map((one) => [one.name, rowOf(one)]));
    const { classes, notes } = await describe(given);
    for (const { name, row } of classes) {
      const one = this.all.get(name);
      if (one?.given?.size) one.row = row; // unless it was undone meanwhile
    }
    return notes;
  }

  // The table as `zslkeras predict --classes` reads it.
  csv() {
    const { attributes } = this.model; // a row may have text beside them
    const rows = this.scored.map((one) => [one.name, ...one.row.slice(0, attributes.length)]);
    return [["class", ...attributes], ...rows].map((cells) => cells.map(cell).join(",") + "\r\n").join("");
  }
}

function rowOf(one) {
  return { ...Object.fromEntries(one.given), ...(one.said && { description: one.said }) };
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// [least, most] of each attribute among the known classes: the ends of its slider.
function rangesOf(rows, number) {
  return Array.from({ length: number }, (_, place) => {
    const values = rows.map((row) => row[place]);
    const least = Math.min(0, ...values);
    const most = Math.max(...values);
    return most > least ? [least, most] : [least, least + 1];
  });
}
