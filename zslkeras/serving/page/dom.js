// Elements made without markup: every text is a text node, so a class named <img onerror=...> stays a name.

export const find = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A name that may go on in the next line after each "_".
export function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
}

// Replaces what is in a list, and leaves the focus at its place, for those who use the keyboard.
export function redraw(list, children) {
  const focused = [...list.children].findIndex((child) => child.contains(document.activeElement));
  list.replaceChildren(...children);
  const again = list.children[focused];
  (again?.querySelector("button") ?? again)?.focus();
}

export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000); // the browser has begun to save it by then
}
