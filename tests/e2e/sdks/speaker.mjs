// The official openai client for Node, told what to ask line by line: a question in JSON on stdin,
// what became of it in JSON on stdout. Questions and answers: speakers.py. Ends with its stdin.
import readline from "node:readline";
import OpenAI from "openai";

const JSON_TYPE = "application/json";
const MESSAGE = (question) => [{ role: "user", content: question.prompt }];

async function answer(client, question) {
  if (question.raw !== null) {
    const request = { body: Buffer.from(question.raw), headers: { "content-type": JSON_TYPE } };
    return { text: [await client.post("/chat/completions", request)] };
  }
  if (question.kind === "models") {
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    models.push((await client.models.retrieve(question.model)).id);
    return { text: [models.join(" ")] };
  }
  const fields = { model: question.model, messages: MESSAGE(question), ...question.fields };
  if (question.kind === "responses") {
    const input = { model: question.model, input: question.prompt, max_output_tokens: 20 };
    return { text: [], stream: await client.responses.create({ ...input, stream: true }) };
  }
  if (!question.stream) {
    const { data, response } = await client.chat.completions.create(fields).withResponse();
    const request_id = response.headers.get("x-request-id");
    return { text: [data.choices[0].message.content], request_id };
  }
  return { text: [], stream: await client.chat.completions.create({ ...fields, stream: true }) };
}

async function tell(question) {
  const { url: baseURL, key: apiKey, retries: maxRetries } = question;
  const client = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey, maxRetries });
  let told = { text: [] };
  try {
    told = await answer(client, question);
    if (told.stream) {
      for await (const chunk of told.stream) {
        told.text.push((chunk.choices ? chunk.choices[0].delta.content : chunk.delta) ?? "");
        if (told.text.length === question.leave_after) break;
      }
    }
  } catch (error) {
    const { status, code, type, param, message, requestID: request_id } = error;
    Object.assign(told, { error: error.constructor.name, status, code, type, param, message });
    Object.assign(told, { request_id });
  }
  delete told.stream;
  return { ...told, text: told.text.join("") };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await tell(JSON.parse(line))));
}
