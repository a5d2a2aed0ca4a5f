// What the relay is asked over HTTP.

export class Refused extends Error {
  constructor(status, brief) {
    super(brief);
    this.status = status;
  }
}

export async function ask(path, method = "GET", body = undefined) {
  const answer = await fetch(path, {
    method,
    credentials: "same-origin",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) {
    let brief = `The relay says ${answer.status}`;
    try {
      const { error } = await answer.json();
      // Who is not let in knows that; why is what helps.
      const parts = answer.status === 401 && error.details ? [error.details] : [error.brief, error.details];
      brief = parts.filter(Boolean).join(". ");
      brief = brief[0].toUpperCase() + brief.slice(1);
    } catch { /* no error of ours */ }
    throw new Refused(answer.status, brief);
  }
  return answer;
}

export const json = async (path) => (await ask(path)).json();
