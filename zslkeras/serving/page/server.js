// Requests to the server that the page came from; the Content-Security-Policy allows no other.

async function asked(path, body) {
  const how = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, how);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The server answered with status ${response.status}.`);
  return answer;
}

export const readModel = () => asked("page/model.json");

export const predictPath = (model) => `/v1/models/${encodeURIComponent(model.name)}:predict`;

// The body of a request for the scores of one image among classes; it is what the curl command sends too.
export const scoringOf = (image, classes) => ({
  signature_name: "score_classes",
  inputs: {
    inputs: [{ b64: image }],
    class_embeddings: classes.map((one) => one.row),
    seen_mask: classes.map((one) => one.seen),
  },
});

// {scores: [K], label}: without gamma, and the decision at the gamma that was chosen.
export async function score(model, image, classes) {
  const { outputs } = await asked(predictPath(model), scoringOf(image, classes));
  return { scores: outputs.scores[0], label: outputs.label[0] };
}

// {name: [A][H][W], name_scores: [A]} of one image.
export async function lookAt(model, image) {
  const { outputs } = await asked(predictPath(model), { signature_name: "attention", inputs: { inputs: [{ b64: image }] } });
  return Object.fromEntries(Object.entries(outputs).map(([name, rows]) => [name, rows[0]]));
}

// {classes: [{name, seen, row, said}], notes: [sentence]} of {name: {attribute: value, description: text}}.
export const describe = (classes) => asked("page/classes", { classes });

// The same of {name: text}.
export const readWords = (words) => asked("page/classes", { words });

// The same of the text of a table.
export const readTable = (table) => asked("page/classes", { table });
